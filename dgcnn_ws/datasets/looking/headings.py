"""Whether the shapes of a class face one way, measured on clouds whose headings nobody has told.

Two shapes of a class are compared as they lie, and again with one of them turned. Where headings are random each of
these is as likely as the others to be the nearest; where they agree, as they lie is nearer than most. So the rank of
that among the turned ones is tested against what chance would have it be.
"""

from typing import Literal

import numpy as np

from dgcnn_ws.datasets.solids import rotation

Rotation = Literal["none", "up", "any"]
GRID = 6  # cells along each axis of the occupancies that are compared
PER_CLASS = 24  # clouds looked at
TURNS = 7
SURE, NOT_AT_ALL = 3.0, 1.5  # standard deviations of chance


def rotate_for(points: np.ndarray, labels: np.ndarray) -> Rotation:
    """Return what `--rotate` suits clouds (n, num_points, 3), y up, with labels (n,): `none`, `up` or `any`.

    `none` where shapes of a class face one way; `up` where they do not, or too few are there to tell; `any` where
    of many shapes no class shows that a side of them points up.
    """
    if agree(points, labels, upright=False) < NOT_AT_ALL and len(labels) >= 4 * PER_CLASS:
        return "any"
    return "none" if agree(points, labels, upright=True) >= SURE else "up"


def agree(points: np.ndarray, labels: np.ndarray, upright: bool) -> float:
    """Return by how many standard deviations shapes are nearer to others of their class as they lie than turned.

    Args:
        points, labels: as for `rotate_for`.
        upright: turn about the up axis alone, not to any orientation.
    """
    rng = np.random.default_rng(0)
    ranks = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))[:PER_CLASS]
        for one, other in zip(members[::2], members[1::2], strict=False):  # no shape twice: the pairs are independent
            still = occupancy(points[one])
            lies, *turned = (
                np.abs(still - occupancy(points[other] @ turn.T)).sum() for turn in [np.eye(3), *turns(rng, upright)]
            )
            ranks.append(np.mean([np.sign(distance - lies) for distance in turned]))  # −1 to 1, 0 by chance
    variance = (TURNS + 2) / (3 * TURNS)  # of a rank among TURNS + 1, all alike
    return float(np.sum(ranks) / np.sqrt(max(len(ranks), 1) * variance))


def turns(rng: np.random.Generator, upright: bool) -> list[np.ndarray]:
    """Return rotation matrices (3, 3): about y in equal steps, or random ones of all."""
    if upright:
        return [rotation(1, 2 * np.pi * step / (TURNS + 1)) for step in range(1, TURNS + 1)]
    return [random_turn(rng) for _ in range(TURNS)]


def random_turn(rng: np.random.Generator) -> np.ndarray:
    """Return a random rotation matrix (3, 3), evenly of all."""
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = matrix * np.sign(np.diag(triangle))
    proper: np.ndarray = matrix * np.linalg.det(matrix)  # a mirror image, all three rows negated, is a turn
    return proper


def occupancy(points: np.ndarray) -> np.ndarray:
    """Return the root of the share of a cloud's points (num_points, 3) in each cell of a grid over its ball."""
    radius = max(np.linalg.norm(points, axis=1).max(), np.finfo(np.float32).tiny)
    cells = np.clip((points / radius + 1) * (GRID / 2), 0, GRID - 1).astype(int)
    counts = np.bincount(cells @ (GRID * GRID, GRID, 1), minlength=GRID**3)
    share: np.ndarray = np.sqrt(counts / len(points))
    return share
