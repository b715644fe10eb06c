"""Random transformations of a batch of point clouds, drawn per cloud on the batch's own device.

Clouds are (B, N, 3), or (B, N, 3 + D) of points that carry features. Coordinates are moved; unit normals, which come
next where there are any, follow what is done to the surface: they turn with it, and where an axis is stretched they
shrink along it. Other features stay.

Neither augmentation shuffles the order of a cloud's points, as the published recipes do: the networks here
are invariant to it, so the shuffle would cost time and change nothing.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def augment_dgcnn(points: Tensor, generator: torch.Generator, normals: bool = False) -> Tensor:
    """Scale by U(2/3, 3/2) and shift by U(-0.2, 0.2), both per axis and cloud (DGCNN, arXiv 1801.07829).

    Args:
        points: (B, N, 3 + D), y up; left unchanged.
        generator: source of randomness on the same device as `points`.
        normals: whether channels 3 to 5 are normals.

    Returns:
        (B, N, 3 + D), new.
    """
    shape = (points.shape[0], 1, 3)
    scale = uniform(points, shape, 2 / 3, 3 / 2, generator)
    shift = uniform(points, shape, -0.2, 0.2, generator)
    return moved(stretched(points, scale, normals), shift)


def augment_paper(points: Tensor, generator: torch.Generator, normals: bool = False) -> Tensor:
    """The augmentation of the Weight Standardization paper's ModelNet40 table (arXiv 1903.10520).

    In this order: rotation about the up axis by U(0, 2π); jitter of every coordinate by N(0, 0.01) clipped to
    0.05; scale by U(0.8, 1.25), one per cloud; rotation about all axes by N(0, 0.06) clipped to 0.18 rad;
    shift by U(-0.1, 0.1) per axis.

    Arguments and result as for `augment_dgcnn`.
    """
    batch, num_points = points.shape[:2]
    up = uniform(points, (batch,), 0, 2 * torch.pi, generator)
    points = rotate(points, axis_rotation(up, 1), normals)
    points = moved(points, clipped_normal(points, (batch, num_points, 3), 0.01, 0.05, generator))
    points = stretched(points, uniform(points, (batch, 1, 1), 0.8, 1.25, generator), False)
    angles = clipped_normal(points, (batch, 3), 0.06, 0.18, generator)
    perturbation = axis_rotation(angles[:, 0], 0)
    for axis in (1, 2):
        perturbation = rotate(perturbation.mT, axis_rotation(angles[:, axis], axis)).mT
    return moved(rotate(points, perturbation, normals), uniform(points, (batch, 1, 3), -0.1, 0.1, generator))


def augment_none(points: Tensor, generator: torch.Generator, normals: bool = False) -> Tensor:
    """The clouds as they are."""
    return points


AUGMENTATIONS: dict[str, Callable[..., Tensor]] = {
    "dgcnn": augment_dgcnn,
    "paper": augment_paper,
    "none": augment_none,
}


ROTATIONS = ("none", "up", "any")


def augmentation(augment: str, rotate: str, normals: bool = False) -> Augmentation:
    """Return what turns clouds at random as `rotate` says (`random_rotations`), and then augments them."""
    chosen = partial(AUGMENTATIONS[augment], normals=True) if normals else AUGMENTATIONS[augment]
    if rotate == "none":
        return chosen
    return lambda points, generator: chosen(random_rotations(rotate, points, generator, normals), generator)


def some_points(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw some of each cloud's points, each at most once: (B, N, C) -> (B, count, C)."""
    order = torch.rand(points.shape[:2], generator=generator, device=points.device).argsort(dim=1)[:, :count]
    return points.gather(1, order[..., None].expand(-1, -1, points.shape[2]))


def random_rotations(kind: str, points: Tensor, generator: torch.Generator, normals: bool = False) -> Tensor:
    """Turn every cloud at random: (B, N, 3 + D) -> (B, N, 3 + D).

    Args:
        kind: `none`; `up`, about the up axis (y) by U(0, 2π); `any`, to an orientation of all, evenly.
        points: (B, N, 3 + D), y up; left unchanged.
        generator: source of randomness on the same device as `points`.
        normals: whether channels 3 to 5 are normals.
    """
    batch = points.shape[0]
    if kind == "up":
        return rotate(points, axis_rotation(uniform(points, (batch,), 0, 2 * torch.pi, generator), 1), normals)
    if kind == "any":  # a normal quaternion has no preferred direction
        shape = (batch, 4)
        quaternions = torch.randn(shape, generator=generator, device=points.device)
        return rotate(points, from_quaternions(quaternions), normals)
    return points


def rotations(kind: str, count: int) -> Tensor:
    """Return rotations (count, 3, 3) that cover those of a kind evenly, the first of them none.

    Args:
        kind: `none` (then all are none); `up`, about the up axis (y) in equal steps; `any`, a super-Fibonacci spiral of
            quaternions (Alexa, CVPR 2022).
    """
    if kind == "up":
        return axis_rotation(torch.arange(count) * (2 * torch.pi / count), 1)
    if kind == "none":
        return torch.eye(3).expand(count, 3, 3)
    step = torch.arange(count, dtype=torch.float64) + 0.5
    inner, outer = (step / count).sqrt(), (1 - step / count).sqrt()
    alpha, beta = 2 * torch.pi * step / 2**0.5, 2 * torch.pi * step / 1.533751168755204288118041
    matrices = from_quaternions(
        torch.stack([inner * alpha.sin(), inner * alpha.cos(), outer * beta.sin(), outer * beta.cos()], dim=1)
    )
    return (matrices @ matrices[0].T).float()


def from_quaternions(quaternions: Tensor) -> Tensor:
    """Rotation matrices (B, 3, 3) of quaternions (B, 4) of any length but 0, x y z w."""
    x, y, z, w = (quaternions / quaternions.norm(dim=1, keepdim=True)).unbind(1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def uniform(like: Tensor, shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)


def clipped_normal(like: Tensor, shape: tuple[int, ...], std: float, clip: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)
    return (std * noise).clamp(-clip, clip)


def axis_rotation(angle: Tensor, axis: int) -> Tensor:
    """Right-handed rotation matrices (B, 3, 3) about coordinate axis 0, 1 or 2 by `angle` (B,) in radians."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    cos, sin = angle.cos(), angle.sin()
    matrix = angle.new_zeros(len(angle), 3, 3)
    matrix[:, axis, axis] = 1
    matrix[:, first, first] = cos
    matrix[:, second, second] = cos
    matrix[:, first, second] = -sin
    matrix[:, second, first] = sin
    return matrix


def rotate(points: Tensor, matrix: Tensor, normals: bool = False) -> Tensor:
    """R p for every point, and R n for its normal in channels 3 to 5: (B, N, 3 + D), (B, 3, 3) -> (B, N, 3 + D)."""
    # Not a matrix product: TF32 or autocast would round the coordinates to a few bits.
    columns = [matrix[:, None, :, axis] for axis in range(3)]  # (B, 1, 3) each
    turned = points[..., 0:1] * columns[0] + points[..., 1:2] * columns[1] + points[..., 2:3] * columns[2]
    return _with_features(turned, points, rotate(points[..., 3:6], matrix) if normals else None)


def stretched(points: Tensor, scale: Tensor, normals: bool) -> Tensor:
    """Coordinates times `scale` (B, 1, 3) or (B, 1, 1) > 0; normals, in channels 3 to 5, those of the new surface."""
    divided = F.normalize(points[..., 3:6] / scale, dim=-1) if normals else None
    return _with_features(points[..., :3] * scale, points, divided)


def moved(points: Tensor, by: Tensor) -> Tensor:
    """Coordinates plus `by` (B, 1 or N, 3)."""
    return _with_features(points[..., :3] + by, points, None)


def _with_features(coordinates: Tensor, points: Tensor, normals: Tensor | None) -> Tensor:
    """Return the features of `points` behind new coordinates (B, N, 3), and behind new normals where they change."""
    if points.shape[-1] == 3:
        return coordinates
    new = [coordinates] if normals is None else [coordinates, normals]
    return torch.cat([*new, points[..., 3 * len(new) :]], dim=-1)
