"""Twins are found though no point is the same, also turned and mirrored; what is merely alike is not taken for one."""

import numpy as np
import pytest

from dgcnn_ws.datasets.built_in.furniture import CLASSES
from dgcnn_ws.datasets.built_in.shapes import normalize
from dgcnn_ws.datasets.looking.near_duplicates import compare, find_twins, move
from dgcnn_ws.datasets.solids import sample_surface

NUM_POINTS = 512


def sample(surface: np.ndarray, seed: int) -> np.ndarray:
    return normalize(sample_surface(surface, NUM_POINTS, np.random.default_rng(seed))[0]).astype(np.float32)


@pytest.fixture(scope="module")
def surfaces() -> list[np.ndarray]:
    """Two shapes of each class, as triangles."""
    rng = np.random.default_rng(0)
    made = [CLASSES[name](rng) for name in sorted(CLASSES) for _ in range(2)]
    return [np.concatenate([surface for _, surface in pieces]) for pieces in made]


@pytest.fixture(scope="module")
def references(surfaces: list[np.ndarray]) -> np.ndarray:
    return np.stack([sample(surface, seed) for seed, surface in enumerate(surfaces)])


def test_each_shape_sampled_again_finds_itself_alone(surfaces: list[np.ndarray], references: np.ndarray) -> None:
    again = np.stack([sample(surface, 1000 + seed) for seed, surface in enumerate(surfaces)])
    pairs = find_twins(again, references, moved=False, quiet=True)
    right = {pair.query for pair in pairs if pair.query == pair.reference}
    assert len(right) >= 0.9 * len(surfaces)
    assert all(pair.query == pair.reference for pair in pairs)
    assert all(pair.shared < 0.1 for pair in pairs)


@pytest.mark.parametrize(("turned", "mirrored"), [(90, False), (0, True), (270, True)])
def test_turned_and_mirrored_copies(surfaces: list[np.ndarray], turned: int, mirrored: bool) -> None:
    rng = np.random.default_rng(1)
    lopsided = rng.normal(size=(1, 40, 3, 3)).reshape(-1, 3, 3)  # triangles without any symmetry
    reference = sample(lopsided, 0)
    # `find_twins` moves the query onto the reference, so the query is the reference moved back.
    back = 360 - turned if turned and not mirrored else turned
    query = move(sample(lopsided, 1)[None], back, mirrored)
    assert find_twins(query, reference[None], moved=False, quiet=True) == []
    (pair,) = find_twins(query, reference[None], quiet=True)
    assert (pair.turned, pair.mirrored) == (turned, mirrored)


def test_a_set_is_compared_with_itself_pair_by_pair(references: np.ndarray, surfaces: list[np.ndarray]) -> None:
    clouds = np.concatenate([references[:6], sample(surfaces[2], 77)[None]])
    pairs = find_twins(clouds, None, moved=False, quiet=True)
    assert [{pair.query, pair.reference} for pair in pairs] == [{2, 6}]


def box(height: float, seed: int) -> np.ndarray:
    """1,024 points on a box's surface."""
    rng = np.random.default_rng(seed)
    points = rng.random((1024, 3))
    points[np.arange(1024), rng.integers(0, 3, 1024)] = rng.integers(0, 2, 1024)
    return points * [1, height, 1]


def test_five_percent_of_height_tell_plain_boxes_apart() -> None:
    same, taller = compare(box(1, 0), box(1, 1)), compare(box(1, 0), box(1.05, 1))
    assert same[0] < 1.085 and same[1] < 1.5
    assert taller[1] > 2 and taller[0] < 1.2  # which the distance alone would hardly see


def test_points_that_are_the_same_are_told() -> None:
    distance, residual, shared = compare(box(1, 0), box(1, 0)[::-1] * 1.01 + 0.003)
    assert distance < 0.01 and residual < 1 and shared == 1
    assert compare(box(1, 0), box(1, 1))[2] < 0.05
