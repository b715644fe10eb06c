"""The contact sheet: what it shows of a cloud, and that every class is on it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dgcnn_ws.pictures.contact_sheet import PALE, PICTURE_AXES, draw_contact_sheet, evenly_spaced, normals, project


def box(rng: np.random.Generator, count: int = 1500) -> np.ndarray:
    """Points on the surface of the cube from -1 to 1."""
    points = rng.uniform(-1, 1, (count, 3))
    points[np.arange(count), rng.integers(3, size=count)] = rng.choice((-1, 1), count)
    return points


def test_the_pictures_axes_are_a_rotation_with_up_upward() -> None:
    assert np.allclose(PICTURE_AXES @ PICTURE_AXES.T, np.eye(3)) and np.isclose(np.linalg.det(PICTURE_AXES), 1)
    assert PICTURE_AXES[0, 1] == 0 and PICTURE_AXES[1, 1] > 0


def test_normals_of_a_sphere_are_its_radii() -> None:
    points = np.random.default_rng(0).normal(size=(2000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert (np.abs((normals(points) * points).sum(1)) > 0.95).mean() > 0.99


@pytest.mark.parametrize("scale", [1e-30, 1, 1e30])
def test_a_cloud_fills_the_unit_circle_whatever_its_size_and_place(scale: float) -> None:
    places, colours = project((box(np.random.default_rng(0)) * scale + 5 * scale).astype(np.float32))
    radius = np.linalg.norm(places, axis=1)
    assert 0.9 < radius.max() <= 1 + 1e-6
    assert colours.min() >= 0 and colours.max() <= 1


def test_what_lies_behind_a_surface_is_pale_and_drawn_first() -> None:
    points = box(np.random.default_rng(1))
    _, colours = project(points)
    pale = np.isclose(colours, PALE).all(1)
    assert 0.35 < pale.mean() < 0.55  # three of a box's six faces
    assert pale[: pale.sum()].all()


def test_the_faces_of_a_box_differ() -> None:
    _, colours = project(box(np.random.default_rng(2)))
    seen = colours[~np.isclose(colours, PALE).all(1)]
    shades, counts = np.unique(seen.mean(1).round(1), return_counts=True)
    assert (counts > len(seen) / 6).sum() >= 3, dict(zip(shades, counts, strict=True))


@pytest.mark.parametrize("points", [np.zeros((5, 3)), np.ones((1, 3))])
def test_points_that_are_all_the_same(points: np.ndarray) -> None:
    places, colours = project(points)
    assert np.isfinite(places).all() and np.isfinite(colours).all()


def test_evenly_spaced_members() -> None:
    assert evenly_spaced(np.arange(3)).tolist() == [0, 1, 2]
    chosen = evenly_spaced(np.arange(100, 200))
    assert len(set(chosen)) == 8 and chosen[0] == 100 and chosen[-1] == 199


@pytest.mark.parametrize("classes", [1, 3, 40])
def test_every_class_is_on_the_sheet(tmp_path: Path, classes: int) -> None:
    rng = np.random.default_rng(0)
    points = np.stack([box(rng, 64) for _ in range(classes)])
    names = [f"class_{i}_$x$" for i in range(classes)]
    draw_contact_sheet(points, np.arange(classes), names, r"$\frac", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        width, height = image.size
        # A cloud's colours are the only ones that are not grey: one cloud a class, so about as many coloured spots.
        pixels = np.asarray(image.convert("RGB")).astype(int)
    coloured = (pixels.max(2) - pixels.min(2) > 60).sum()
    assert coloured > 100 * classes
    assert max(width, height) < 5000


def test_a_class_without_clouds_and_a_vector_format(tmp_path: Path) -> None:
    draw_contact_sheet(np.ones((1, 9, 3)), np.array([1]), ["none", "one"], "title", tmp_path / "sheet.svg")
    assert b"<svg" in (tmp_path / "sheet.svg").read_bytes()[:1000]
