"""Corruptions do what they say, to each cloud alike in any batch, and more at strength 2 than at 1."""

import pytest
import torch

from dgcnn_ws.datasets import PointClouds
from dgcnn_ws.datasets.corrupt import CORRUPTIONS, STRENGTHS, CorruptedClouds
from dgcnn_ws.errors import InputError

KINDS = [kind for kind in CORRUPTIONS if kind != "none"]
KEEP_POINTS = {"uniform", "gaussian", "impulse", "background", "tilt", "shear", "bulge"}
LEFT = {"fewer": (256, 128), "uneven": (466, 425), "cutout": (437, 362), "occlusion": (342, 256), "lidar": (342, 342)}


@pytest.fixture(scope="module")
def clouds() -> PointClouds:
    points = torch.randn(6, 512, 3, generator=torch.Generator().manual_seed(0))
    points /= points.norm(dim=2).amax(1)[:, None, None]
    return PointClouds(points, torch.arange(6) % 2, ["a", "b"], "test")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_cloud_is_the_same_in_any_batch_and_in_the_unit_sphere(kind: str, strength: int, clouds: PointClouds) -> None:
    changed = CorruptedClouds(clouds, 512, kind, strength)
    (together,) = changed.read([torch.arange(6)])
    alone = torch.cat(list(changed.read(torch.arange(6).split(1))))
    assert torch.equal(together, alone)
    assert together.shape == (6, 512 if kind in KEEP_POINTS else LEFT[kind][strength - 1], 3)
    assert changed.num_points == together.shape[1] and len(changed) == 6
    assert torch.allclose(together.norm(dim=2).amax(1), torch.ones(6), atol=1e-6)
    assert torch.allclose(together.mean(1), torch.zeros(6, 3), atol=1e-5)
    (other,) = CorruptedClouds(clouds, 512, kind, strength, seed=100).read([torch.arange(6)])
    assert not torch.equal(together, other)
    few = next(CorruptedClouds(clouds, 100, kind, strength).read([torch.arange(6)]))
    assert torch.equal(few, together[:, :100])


@pytest.mark.parametrize("kind", sorted(KEEP_POINTS))
def test_more_is_more(kind: str, clouds: PointClouds) -> None:
    """On average over 6 clouds: how far points move, or how many do."""
    moved = []
    for strength in STRENGTHS:
        changed = CORRUPTIONS[kind](clouds.points, strength, torch.Generator().manual_seed(1))
        moved.append(torch.cdist(changed, clouds.points).amin(2).mean().item())
    assert moved[1] > 1.3 * moved[0] > 0


@pytest.mark.parametrize("kind", ["fewer", "uneven", "cutout", "occlusion"])
def test_what_is_left_was_there(kind: str, clouds: PointClouds) -> None:
    left = CORRUPTIONS[kind](clouds.points, 2, torch.Generator().manual_seed(1))
    assert torch.cdist(left.double(), clouds.points.double()).amin(2).max() < 1e-7
    assert all(len(cloud.unique(dim=0)) == len(cloud) for cloud in left)


def test_an_occluded_cloud_lacks_one_side_and_a_scanned_one_has_levels(clouds: PointClouds) -> None:
    left = CORRUPTIONS["occlusion"](clouds.points, 2, torch.Generator().manual_seed(1))
    assert (left.mean(1).norm(dim=1) > 0.1).all() and (clouds.points.mean(1).norm(dim=1) < 0.05).all()
    levels = CORRUPTIONS["lidar"](clouds.points, 2, torch.Generator().manual_seed(1))[..., 1]
    assert all(len(cloud.mul(1e4).round().unique()) <= 12 for cloud in levels)


def test_none_gives_the_first_points(clouds: PointClouds) -> None:
    (same,) = CorruptedClouds(clouds, 100, "none", 1).read([torch.arange(6)])
    assert torch.equal(same, clouds.points[:, :100])


@pytest.mark.parametrize(("kind", "strength"), [("rain", 1), ("uniform", 3)])
def test_what_there_is_not_is_refused(kind: str, strength: int, clouds: PointClouds) -> None:
    with pytest.raises(InputError, match="There is no corruption"):
        CorruptedClouds(clouds, 100, kind, strength)
