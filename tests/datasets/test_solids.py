"""Solids against closed forms."""

import numpy as np
import pytest

from dgcnn_ws.datasets import solids


def area(triangles: np.ndarray) -> float:
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2)


# A circle is drawn with 24 corners: circumference and disc area come out smaller by these factors.
EDGE = 24 * np.sin(np.pi / 24) / np.pi
DISC = 12 * np.sin(np.pi / 12) / np.pi


@pytest.mark.parametrize(
    ("triangles", "expected"),
    [
        (solids.box(1, 2, 3, 2, 3, 4), 2 * (6 + 8 + 12)),
        (solids.box(0, 0, 0, 2, 3, 2, taper=0.0), 4 + 4 * 10**0.5),  # a pyramid of slant height sqrt(10)
        (solids.disc(5, 2, 3), 2 * np.pi * 4 * DISC + 12 * np.pi * EDGE),
        (solids.rod((1, 2, 3), (1, 2, 5), 0.5), 2 * np.pi * 0.25 * DISC + 2 * np.pi * EDGE),
    ],
)
def test_surface_areas(triangles: np.ndarray, expected: float) -> None:
    assert area(triangles) == pytest.approx(expected)


@pytest.mark.parametrize("end", [(1.0, 0.0, 0.0), (0.0, -2.0, 0.0), (0.3, 0.4, -0.5)])
def test_a_rod_keeps_its_radius_around_its_axis(end: tuple[float, float, float]) -> None:
    start = np.array([0.1, 0.2, 0.3])
    corners = solids.rod(tuple(start), tuple(start + end), 0.25).reshape(-1, 3) - start
    length = np.linalg.norm(end)
    along = corners @ np.array(end) / length
    across = np.linalg.norm(corners - along[:, None] * np.array(end) / length, axis=1)
    assert along.min() == pytest.approx(0, abs=1e-12) and along.max() == pytest.approx(length)
    assert across.max() == pytest.approx(0.25)


def test_turn_is_right_handed_about_the_pivot() -> None:
    turned = solids.turn(np.array([[[1.0, 1, 0]] * 3]), 2, np.pi / 2, (1, 0, 0))
    assert np.allclose(turned, [0, 0, 0])
