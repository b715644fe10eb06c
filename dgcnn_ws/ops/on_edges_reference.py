"""The passes over a block of edges in plain torch, for every device without loops of its own.

A block is n consecutive points of all B N, from `first` on: whole clouds, or a part of one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dgcnn_ws.ops.reference import arg_dtype


def by_cloud(x: Tensor, num_points: int, first: int) -> tuple[Tensor, slice]:
    """Return x (n, ...) as (clouds, points, ...), and which clouds those are."""
    clouds = slice(first // num_points, (first + len(x) - 1) // num_points + 1)
    return x.unflatten(0, (clouds.stop - clouds.start, -1)), clouds


def affine(x: Tensor, num_points: int, scale: Tensor, shift: Tensor, first: int) -> Tensor:
    """Return scale x + shift of x (n, k, C), with a scale and shift (B, C) a cloud."""
    parts, clouds = by_cloud(x, num_points, first)
    return (parts * scale[clouds, None, None].to(x.dtype) + shift[clouds, None, None].to(x.dtype)).flatten(0, 1)


def _first_layer(ab: Tensor, idx: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Return a_j + b_i (n, k, C), and the j (n k,) among all B N points."""
    num_points, (a, b) = ab.shape[1], ab.flatten(0, 1).chunk(2, dim=1)
    clouds = torch.arange(first, last, device=ab.device) // num_points
    rows = (idx.flatten(0, 1)[first:last] + (clouds * num_points).unsqueeze(1)).flatten()
    return a.index_select(0, rows).unflatten(0, (last - first, -1)) + b[first:last].unsqueeze(1), rows


def activated(ab: Tensor, idx: Tensor, scale: Tensor, shift: Tensor, slope: float, first: int, last: int) -> Tensor:
    """Return z (n, k, C) = leaky_relu(scale (a_j + b_i) + shift) of the points `first` .. `last` - 1 of all B N."""
    y, _ = _first_layer(ab, idx, first, last)
    return F.leaky_relu_(affine(y, ab.shape[1], scale, shift, first), slope)


def activated_backward(
    ab: Tensor, idx: Tensor, scale: Tensor, shift: Tensor, slope: float, first: int, g_z: Tensor, g_ab: Tensor
) -> Tensor:
    """Overwrite g_z, the gradient of z, and add to g_ab (B, N, 2C); return sums (n, 2, C), a point's parts of the
    gradients of scale and shift."""
    n, _, channels = g_z.shape
    y, rows = _first_layer(ab, idx, first, first + n)
    g_y, sums = affine_backward(y, ab.shape[1], scale, shift, slope, first, g_z)
    points = g_ab.flatten(0, 1)
    points[first : first + n, channels:] = g_y.sum(1)
    _add_rows(points[:, :channels], rows, g_y.flatten(0, 1))
    return sums


def affine_backward(
    y: Tensor, num_points: int, scale: Tensor, shift: Tensor, slope: float, first: int, g_z: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradient of y (n, k, C), and sums (n, 2, C) as above, from that of leaky_relu(scale y + shift)."""
    g = torch.where(affine(y, num_points, scale, shift, first) > 0, g_z, slope * g_z)
    sums = torch.stack([(g * y).sum(1), g.sum(1)], dim=1)
    parts, clouds = by_cloud(g, num_points, first)
    return (parts * scale[clouds, None, None].to(g.dtype)).flatten(0, 1), sums


def _add_rows(total: Tensor, rows: Tensor, values: Tensor) -> None:
    """Add values (E, C) to the rows (E,) of total (R, C), in an order that repeats."""
    if total.device.type == "cpu":
        total.index_add_(0, rows, values)
        return
    reached, order = torch.sort(rows, stable=True)
    bounds = torch.searchsorted(reached, torch.arange(len(total) + 1, device=rows.device))
    total += torch.segment_reduce(values[order], "sum", offsets=bounds, initial=0)


def extremes(y: Tensor, num_points: int, use_max: Tensor, centre: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return extreme (n, C) over the edges of y (n, k, C), its slot, and sums (n, 2, C) of y - centre, and squared."""
    sign = use_max.to(y.dtype) * 2 - 1
    best, arg = (y * sign).max(1)
    parts, clouds = by_cloud(y, num_points, first)
    offset = (parts - centre[clouds, None, None].to(y.dtype)).flatten(0, 1)
    sums = torch.stack([offset.sum(1), offset.square().sum(1)], dim=1)
    return best * sign, arg.to(arg_dtype(y.shape[1])), sums


def extremes_backward(
    y: Tensor,
    num_points: int,
    mean: Tensor,
    slope: Tensor,
    curve: Tensor,
    arg: Tensor,
    g_extreme: Tensor,
    first: int,
) -> Tensor:
    """Return slope + curve (y - mean), one of each a cloud, with g_extreme (n, C) added at slot arg, in y's place."""
    parts, clouds = by_cloud(y, num_points, first)
    mean, slope, curve = (part[clouds, None, None].to(y.dtype) for part in (mean, slope, curve))
    g_y = (slope + curve * (parts - mean)).flatten(0, 1)
    return g_y.scatter_add_(1, arg.long().unsqueeze(1), g_extreme.to(y.dtype).unsqueeze(1))
