"""Polygons cut into triangles: by area, and by what lies outside of them."""

import numpy as np
import pytest

from dgcnn_ws.datasets.formats import polygons
from dgcnn_ws.datasets.formats.polygons import make_shape, strip_triangles


def area(triangles: np.ndarray) -> float:
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2)


def placed(outline: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An outline (n, 2) turned anyhow in space, of any size, far from the origin."""
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.column_stack([outline, np.zeros(len(outline))]) @ turn.T + rng.normal(size=3) * 100


@pytest.mark.parametrize("seed", range(30))
def test_any_outline_keeps_its_area(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(4, 40))
    angle, radius = np.arange(count) * 2 * np.pi / count, rng.uniform(0.1, 1, count)
    outline = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    following = np.roll(outline, -1, axis=0)
    shoelace = abs((outline[:, 0] * following[:, 1] - outline[:, 1] * following[:, 0]).sum()) / 2
    for start in range(0, count, 5):
        corners = np.roll(np.arange(count), start)[None]
        assert area(make_shape(placed(outline, rng), corners)) == pytest.approx(shoelace, rel=1e-6)


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("way", [1, -1])
def test_a_dart_is_cut_through_its_reflex_corner(start: int, way: int) -> None:
    dart = np.array([(0, 0, 0), (2, 1, 0), (0, 2, 0), (0.5, 1, 0)])
    assert area(make_shape(dart, np.roll(np.arange(4), start)[None, ::way])) == pytest.approx(1.5)


def test_polygons_of_many_kinds_in_one_list() -> None:
    square = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (-1, 0.5, 0)])
    corners = [0, 1, 2, 0, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2]  # a triangle, a quadrilateral, a pentagon, a line, a point
    assert area(make_shape(square, corners, [3, 4, 5, 2, 1])) == pytest.approx(0.5 + 1 + 1.5)


def test_a_strip_is_three_corners_in_a_row() -> None:
    corners, counts = np.array([0, 1, 2, 3, -1, 4, 5, 6, 7, 8, 9]), np.array([9, 2])
    assert strip_triangles(corners, counts).tolist() == [[0, 1, 2], [1, 2, 3], [4, 5, 6], [5, 6, 7]]


@pytest.mark.parametrize(
    "faces", [[[0, 1, 3]], [[-1, 0, 1]], [[0.0, 1.0, np.nan]], [[0.0, 1.0, 1.5]], [[0, 1]], [0, 1]]
)
def test_faces_that_cannot_be(faces: list[object]) -> None:
    with pytest.raises(ValueError, match="face"):
        make_shape(np.zeros((3, 3)), faces)


def test_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, "MAX_TRIANGLES", 3)
    with pytest.raises(ValueError, match="more than 3 triangles"):
        make_shape(np.zeros((3, 3)), [[0, 1, 2]] * 4)
    monkeypatch.undo()
    comb = np.array([*((x, y, 0) for x in range(50) for y in (0, 1)), (50, -1, 0), (-1, -1, 0)])
    monkeypatch.setattr(polygons, "MAX_EARS", 100)
    with pytest.raises(ValueError, match="too many corners"):
        make_shape(comb, np.arange(len(comb))[None])
