"""The passes over a block of edges on the CPU: Numba loops. Same functions and signatures as `on_edges_reference`."""

from typing import Any

import torch
from torch import Tensor

from dgcnn_ws.ops.cpu import _share, _signs
from dgcnn_ws.ops.loops import layers as layer_loops
from dgcnn_ws.ops.reference import arg_dtype


def activated(ab: Tensor, idx: Tensor, scale: Tensor, shift: Tensor, slope: float, first: int, last: int) -> Tensor:
    """Return z (n, k, C) = leaky_relu(scale (a_j + b_i) + shift) of the points `first` .. `last` - 1 of all B N."""
    z = torch.empty(last - first, idx.shape[2], ab.shape[2] // 2, dtype=ab.dtype)
    inputs = _array(ab), _array(idx, torch.int64), _array(scale, ab.dtype), _array(shift, ab.dtype)
    _share(layer_loops.activated_forward, last - first, z.numel(), *inputs, _number(slope, ab), z.numpy(), first)
    return z


def activated_backward(
    ab: Tensor, idx: Tensor, scale: Tensor, shift: Tensor, slope: float, first: int, g_z: Tensor, g_ab: Tensor
) -> Tensor:
    """Overwrite g_z, the gradient of z, and add to g_ab (B, N, 2C); return sums (n, 2, C), a point's parts of the
    gradients of scale and shift."""
    n, _, channels = g_z.shape
    g, edges = g_z.numpy(), _array(idx, torch.int64)
    g_b, sums = g_z.new_empty(n, channels), g_z.new_empty(n, 2, channels)
    inputs = _array(ab), edges, _array(scale, ab.dtype), _array(shift, ab.dtype), _number(slope, ab)
    _share(layer_loops.activated_backward, n, g_z.numel(), *inputs, g, g_b.numpy(), sums.numpy(), first)
    g_ab.flatten(0, 1)[first : first + n, channels:] = g_b
    tiles = max(1, min(torch.get_num_threads(), channels // 16))
    _share(layer_loops.scatter, tiles, g_z.numel(), g, edges, g_ab.numpy(), first, tiles)
    return sums


def extremes(y: Tensor, num_points: int, use_max: Tensor, centre: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return extreme (n, C) over the edges of y (n, k, C), its slot, and sums (n, 2, C) of y - centre, and squared."""
    n, k, channels = y.shape
    extreme, sums = y.new_empty(n, channels), y.new_empty(n, 2, channels)
    arg = torch.empty(n, channels, dtype=arg_dtype(k))
    outs = extreme.numpy(), arg.numpy(), sums.numpy()
    inputs = _array(y), num_points, _signs(use_max, y.dtype), _array(centre, y.dtype)
    _share(layer_loops.extremes_forward, n, y.numel(), *inputs, *outs, first)
    return extreme, arg, sums


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
    inputs = (_array(part, y.dtype) for part in (mean, slope, curve))
    gradient = _array(arg), _array(g_extreme, y.dtype)
    _share(layer_loops.extremes_backward, len(y), y.numel(), y.numpy(), num_points, *inputs, *gradient, first)
    return y


def _array(x: Tensor, dtype: torch.dtype | None = None) -> Any:
    return x.detach().to(dtype or x.dtype).contiguous().numpy()


def _number(slope: float, like: Tensor) -> object:
    return _array(torch.tensor(slope, dtype=like.dtype))[()]
