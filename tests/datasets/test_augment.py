"""Augmentation: ranges, and the geometry each step must keep."""

import math

import pytest
import torch
from torch import Tensor

from dgcnn_ws.datasets.augment import (
    AUGMENTATIONS,
    augment_dgcnn,
    augment_none,
    augment_paper,
    augmentation,
    axis_rotation,
    from_quaternions,
    random_rotations,
    rotate,
    rotations,
    some_points,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cloud(batch: int, points: int = 64) -> Tensor:
    return torch.randn(1, points, 3, generator=generator(9)).expand(batch, -1, -1).contiguous()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_pure_function_of_clouds_and_generator(name: str) -> None:
    points = cloud(4)
    before = points.clone()
    first, again = (AUGMENTATIONS[name](points, generator(1)) for _ in range(2))
    assert torch.equal(points, before) and torch.equal(first, again)
    assert first.shape == points.shape and first.dtype == points.dtype
    if name != "none":
        assert not torch.equal(first, AUGMENTATIONS[name](points, generator(2)))
        assert not torch.equal(first[0], first[1]), "each cloud has its own draw"


def test_none_is_identity() -> None:
    points = cloud(2)
    assert torch.equal(augment_none(points, generator()), points)


def test_dgcnn_is_a_scale_and_a_shift_per_axis_within_the_published_ranges() -> None:
    points = cloud(4000).double()
    out = augment_dgcnn(points, generator())
    # y = s x + t has slope s between any two points, and t is what remains
    low, high = points[0].argmin(0), points[0].argmax(0)
    axes = torch.arange(3)
    scale = (out[:, high, axes] - out[:, low, axes]) / (points[:, high, axes] - points[:, low, axes])
    shift = out[:, low, axes] - scale * points[:, low, axes]
    assert torch.allclose(out, points * scale[:, None] + shift[:, None])
    for drawn, start, stop in ((scale, 2 / 3, 3 / 2), (shift, -0.2, 0.2)):
        width = stop - start
        assert drawn.min() >= start - 1e-9 and drawn.max() <= stop + 1e-9
        # a uniform law on [start, stop]: mean in the middle, variance width^2 / 12
        assert (drawn.mean(0) - (start + stop) / 2).abs().max() < 0.03 * width
        assert (drawn.var(0) - width**2 / 12).abs().max() < 0.05 * width**2 / 12
    assert torch.corrcoef(scale.T).fill_diagonal_(0).abs().max() < 0.1, "axes are scaled independently"


def fit_similarity(source: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Least-squares scale (B,), rotation (B, 3, 3), shift (B, 3): target = s R source + t (Umeyama, 1991)."""
    centred, moved = source - source.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    u, singular, vh = torch.linalg.svd(moved.mT @ centred)
    sign = torch.ones_like(singular)
    sign[:, 2] = torch.det(u @ vh).sign()
    turn = u @ (sign[:, :, None] * vh)
    scale = (singular * sign).sum(1) / centred.square().sum((1, 2))
    return scale, turn, target.mean(1) - scale[:, None] * (turn @ source.mean(1)[:, :, None])[..., 0]


def test_paper_is_a_similarity_with_jitter_within_the_published_ranges() -> None:
    points = cloud(300, 512).double()
    out = augment_paper(points, generator())
    scale, turn, shift = fit_similarity(points, out)
    assert scale.min() > 0.8 - 0.01 and scale.max() < 1.25 + 0.01 and scale.max() - scale.min() > 0.4
    assert shift.abs().max() < 0.1 + 0.01 and shift.abs().max() > 0.09
    residual = (out - shift[:, None]) @ turn / scale[:, None, None] - points
    assert residual.abs().max() < 0.05 + 0.01 and abs(residual.std() - 0.01) < 0.0005
    # the up axis leans by at most two clipped angles of 0.18, but is turned all the way round
    tilt = turn[:, 1, 1].acos()
    assert 0.1 < tilt.max() < 2**0.5 * 0.18 + 0.01
    quadrant = (torch.atan2(turn[:, 0, 2], turn[:, 0, 0]) / (math.pi / 2)).floor().long() % 4
    assert torch.bincount(quadrant, minlength=4).min() > 300 / 4 * 0.6


@pytest.mark.parametrize(("axis", "start", "end"), [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_rotation_is_right_handed(axis: int, start: int, end: int) -> None:
    unit = torch.eye(3, dtype=torch.float64)
    quarter = axis_rotation(torch.tensor([math.pi / 2], dtype=torch.float64), axis)
    assert torch.allclose(rotate(unit[start].view(1, 1, 3), quarter).view(3), unit[end], atol=1e-12)
    assert torch.allclose(rotate(unit[axis].view(1, 1, 3), quarter).view(3), unit[axis], atol=1e-12)


def test_coordinates_keep_float32_under_autocast() -> None:
    points = cloud(2)
    with torch.autocast("cpu", torch.bfloat16):
        out = augment_paper(points, generator())
    assert torch.equal(out, augment_paper(points, generator()))


@pytest.mark.parametrize("kind", ["up", "any"])
def test_random_rotations_keep_distances_and_do_not_mirror(kind: str) -> None:
    points = torch.randn(500, 3, 3)
    turned = random_rotations(kind, points, torch.Generator().manual_seed(0))
    assert torch.allclose(turned.norm(dim=2), points.norm(dim=2), atol=1e-5)
    assert torch.allclose(torch.linalg.det(turned), torch.linalg.det(points), atol=1e-4)
    assert torch.equal(turned[..., 1], points[..., 1]) == (kind == "up")
    where = random_rotations(kind, torch.eye(3).expand(20_000, 3, 3), torch.Generator().manual_seed(0))
    expected = torch.tensor([0, 1.0, 0]) if kind == "up" else torch.zeros(3)
    assert torch.allclose(where[:, 1].mean(0), expected, atol=0.03)
    assert where[:, 0].mean(0).norm() < 0.03  # no heading is likelier


@pytest.mark.parametrize("kind", ["none", "up", "any"])
@pytest.mark.parametrize("count", [1, 2, 12, 60])
def test_rotations_that_cover_all(kind: str, count: int) -> None:
    matrices = rotations(kind, count)
    assert matrices.shape == (count, 3, 3) and torch.allclose(matrices[0], torch.eye(3), atol=1e-6)
    assert torch.allclose(matrices @ matrices.mT, torch.eye(3).expand(count, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(count))
    if kind == "up":
        assert torch.allclose(matrices[:, 1], torch.tensor([0, 1.0, 0]).expand(count, 3))
        assert count == 1 or matrices.mean(0)[[0, 2]].abs().max() < 1e-6
    if kind == "any" and count == 60:
        assert matrices.mean(0).abs().max() < 0.1


def test_quaternions_turn_as_rotations_about_axes_do() -> None:
    angle = torch.tensor([0.3, 1.2, -2.0])
    for axis in range(3):
        quaternions = torch.zeros(3, 4)
        quaternions[:, axis], quaternions[:, 3] = 5 * (angle / 2).sin(), 5 * (angle / 2).cos()
        assert torch.allclose(from_quaternions(quaternions), axis_rotation(angle, axis), atol=1e-6)


def test_clouds_are_turned_before_they_are_augmented() -> None:
    points = torch.randn(6, 50, 3)
    assert augmentation("dgcnn", "none") is augment_dgcnn
    for kind in ("up", "any"):
        seen = augmentation("none", kind)(points, generator())
        assert torch.equal(seen, random_rotations(kind, points, generator()))
        same = generator()
        assert torch.equal(
            augmentation("dgcnn", kind)(points, generator()), augment_dgcnn(random_rotations(kind, points, same), same)
        )


def test_some_points_are_each_clouds_own_and_drawn_once() -> None:
    points = torch.randn(3, 20, 3)
    found = some_points(points, 12, torch.Generator().manual_seed(0))
    assert found.shape == (3, 12, 3)
    for cloud, drawn in zip(points, found, strict=True):
        assert len(drawn.unique(dim=0)) == 12
        assert all((cloud == point).all(1).any() for point in drawn)
    assert torch.equal(some_points(points, 12, torch.Generator().manual_seed(0)), found)
    assert not torch.equal(some_points(points, 12, torch.Generator().manual_seed(1)), found)
