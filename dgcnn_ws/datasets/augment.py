"""Random transformations of a batch of point clouds, drawn per cloud on the batch's own device.

Neither augmentation shuffles the order of a cloud's points, as the published recipes do: the networks here
are invariant to it, so the shuffle would cost time and change nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def augment_dgcnn(points: Tensor, generator: torch.Generator) -> Tensor:
    """Scale by U(2/3, 3/2) and shift by U(-0.2, 0.2), both per axis and cloud (DGCNN, arXiv 1801.07829).

    Args:
        points: (B, N, 3), y up; left unchanged.
        generator: source of randomness on the same device as `points`.

    Returns:
        (B, N, 3), new.
    """
    shape = (points.shape[0], 1, 3)
    scale = uniform(points, shape, 2 / 3, 3 / 2, generator)
    shift = uniform(points, shape, -0.2, 0.2, generator)
    return points * scale + shift


def augment_paper(points: Tensor, generator: torch.Generator) -> Tensor:
    """The augmentation of the Weight Standardization paper's ModelNet40 table (arXiv 1903.10520).

    In this order: rotation about the up axis by U(0, 2π); jitter of every coordinate by N(0, 0.01) clipped to
    0.05; scale by U(0.8, 1.25), one per cloud; rotation about all axes by N(0, 0.06) clipped to 0.18 rad;
    shift by U(-0.1, 0.1) per axis.

    Args:
        points: (B, N, 3), y up; left unchanged.
        generator: source of randomness on the same device as `points`.

    Returns:
        (B, N, 3), new.
    """
    batch = points.shape[0]
    up = uniform(points, (batch,), 0, 2 * torch.pi, generator)
    points = rotate(points, axis_rotation(up, 1))
    points = points + clipped_normal(points, tuple(points.shape), 0.01, 0.05, generator)
    points = points * uniform(points, (batch, 1, 1), 0.8, 1.25, generator)
    angles = clipped_normal(points, (batch, 3), 0.06, 0.18, generator)
    perturbation = axis_rotation(angles[:, 0], 0)
    for axis in (1, 2):
        perturbation = rotate(perturbation.mT, axis_rotation(angles[:, axis], axis)).mT
    return rotate(points, perturbation) + uniform(points, (batch, 1, 3), -0.1, 0.1, generator)


def augment_none(points: Tensor, generator: torch.Generator) -> Tensor:
    """The clouds as they are."""
    return points


AUGMENTATIONS: dict[str, Augmentation] = {
    "dgcnn": augment_dgcnn,
    "paper": augment_paper,
    "none": augment_none,
}


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


def rotate(points: Tensor, matrix: Tensor) -> Tensor:
    """R p for every point: (B, N, 3), (B, 3, 3) -> (B, N, 3)."""
    # Not a matrix product: TF32 or autocast would round the coordinates to a few bits.
    columns = [matrix[:, None, :, axis] for axis in range(3)]  # (B, 1, 3) each
    return points[..., 0:1] * columns[0] + points[..., 1:2] * columns[1] + points[..., 2:3] * columns[2]
