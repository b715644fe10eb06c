"""The operators on the CPU: Numba loops over the tensors' memory, on as many threads as torch uses.

Same functions and signatures as `reference`. The threads are our own: Numba's parallel loops are not safe to
enter from two Python threads or after a fork, and do not follow torch.set_num_threads.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import gcd
from typing import Any

import torch
from torch import Tensor

from dgcnn_ws.ops.loops import channels as channel_loops
from dgcnn_ws.ops.loops import distances as distance_loops
from dgcnn_ws.ops.loops import edges as edge_loops
from dgcnn_ws.ops.loops import search as search_loops
from dgcnn_ws.ops.loops.vectors import LANES
from dgcnn_ws.ops.reference import arg_dtype, compute_dtype

MAX_AXES = 16  # coordinates up to which differences, which need no centring, are as quick as products
SMALL = 2**14  # multiply-adds (some 5 us): less is done before another thread has woken up
_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork


def _share(loop: Callable[..., None], units: int, work: int, *args: Any) -> None:
    """Run loop(*args, start, stop) over 0..units-1, on torch's number of threads if the work is worth it."""
    global _pool
    parts = min(torch.get_num_threads(), units) if work > SMALL else 1
    if parts <= 1:
        loop(*args, 0, units)
        return
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="dgcnn_ws")
    bounds = [units * part // parts for part in range(parts + 1)]
    futures = [_pool.submit(loop, *args, bounds[part], bounds[part + 1]) for part in range(1, parts)]
    loop(*args, 0, bounds[1])
    for part, future in enumerate(futures, start=1):
        if future.cancel():  # not begun: the other cores are busy, so do it here
            loop(*args, bounds[part], bounds[part + 1])
        else:
            future.result()


def _view(x: Tensor, dtype: torch.dtype | None = None) -> Any:
    """Return the numbers of x as a flat array: of bfloat16 the bits, which NumPy has no type for."""
    x = x.detach().to(dtype or x.dtype).contiguous().view(-1)
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def _stored(x: Tensor) -> torch.dtype:
    """Return the type in which the loops read and write features: x's own, but for float16."""
    return x.dtype if x.dtype in (torch.float32, torch.float64, torch.bfloat16) else torch.float32


def _tiles(batch: int) -> int:
    threads = torch.get_num_threads()
    return threads // gcd(batch, threads)


def _signs(use_max: Tensor, dtype: torch.dtype) -> Any:
    return _view(use_max.to(dtype) * 2 - 1)


def knn(x: Tensor, k: int) -> Tensor:
    """Return idx (B, N, k) int64 of the k nearest neighbours of each point in x (B, N, C)."""
    batch, num_points, channels = x.shape
    idx = torch.empty(batch, num_points, k, dtype=torch.int64)
    x, tiles = x.detach(), batch * -(-num_points // distance_loops.TILE)
    terms = torch.empty(tiles * distance_loops.TILE, dtype=compute_dtype(x))
    shape, half = (num_points, channels), x.dtype == torch.bfloat16
    if channels > MAX_AXES and half and distance_loops.PAIRS:
        # bfloat16 numbers have exact products in float32. Far from zero, where sums of them might round, they lie on a
        # grid so coarse that the sums do not: no need to centre them.
        packed = torch.empty(len(terms) * -(-channels // 2), dtype=torch.uint32)
        _share(distance_loops.pack_pairs, tiles, x.numel(), _view(x), _view(packed), _view(terms), *shape)
        points = terms[:0]
    else:
        x, points = x.to(terms.dtype), terms.new_empty(len(terms) * channels)
        by_products = channels > MAX_AXES
        # Squares and products of what is far from zero would be large, and their difference rounded.
        mean = _view(x.mean(1) if by_products and not half else x.new_zeros(batch, channels))
        inputs = _view(x), mean, mean.dtype.type(0 if by_products else float("inf")), _view(points), _view(terms)
        _share(distance_loops.pack, tiles, x.numel(), *inputs, *shape)
        packed, points = (points, points[:0]) if by_products else (points[:0], points)
    blocks, arrays = batch * -(-num_points // distance_loops.BLOCK), (packed, points, terms, idx)
    _share(search_loops.nearest, blocks, x.numel() * num_points, *map(_view, arrays), num_points, k)
    return idx


def edge_aggregate(ab: Tensor, idx: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme (B, N, C), its slot arg (B, N, C), and mean, var (B, C) of y_ij = a_j + b_i."""
    dtype, (batch, num_points, k), channels = compute_dtype(ab), idx.shape, ab.shape[2] // 2
    extreme = torch.empty(batch, num_points, channels, dtype=_stored(ab))
    arg = torch.empty(batch, num_points, channels, dtype=arg_dtype(k))
    units = batch * -(-channels // LANES)
    pieces = 16 // gcd(units, 16)  # not the number of threads, so that the sums do not depend on it
    sums = torch.empty(batch, pieces, 2, channels, dtype=torch.float64)
    shift = torch.empty(batch, channels, dtype=dtype)
    inputs = _view(ab, extreme.dtype), _view(idx, torch.int64), _signs(use_max, dtype)
    outputs = (_view(output) for output in (extreme, arg, shift, sums))
    shape = num_points, k, pieces
    _share(edge_loops.edge_forward, units * pieces, extreme.numel() * k, *inputs, *outputs, *shape)
    offset, square = (sums.sum(1) / (num_points * k)).unbind(1)
    mean, var = offset + shift, (square - offset * offset).clamp_min_(0)
    return extreme.to(ab.dtype), arg, mean.to(dtype), var.to(dtype)


def edge_aggregate_backward(
    ab: Tensor,
    idx: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
) -> Tensor:
    """Return the gradient of ab (B, N, 2C); a gradient that is None counts as zero."""
    stored, (batch, num_points, k), channels = _stored(ab), idx.shape, mean.shape[1]
    neighbours, g_ab = _view(idx, torch.int64), torch.empty(ab.shape, dtype=stored)
    statistics = g_mean is not None or g_var is not None
    offsets, sources = torch.empty(2, 0, dtype=torch.int32)
    if statistics:
        offsets = torch.empty(batch, num_points + 1, dtype=torch.int32)
        sources = torch.empty(batch, num_points * k, dtype=torch.int32)
        _share(
            edge_loops.transpose_graph,
            batch,
            idx.numel(),
            *(neighbours, _view(offsets), _view(sources), num_points, k),
        )
    _share(
        edge_loops.edge_backward,
        batch * -(-channels // LANES),
        arg.numel() * k,
        *(_view(ab, stored), neighbours, _view(offsets), _view(sources), _view(arg), _view(mean)),
        _view(torch.empty(0, dtype=stored) if g_extreme is None else g_extreme, stored),
        *_slope_and_curve(mean, g_mean, g_var, num_points * k),
        *(_view(g_ab), num_points, k, channels),
    )
    return g_ab.to(ab.dtype)


def scale_shift_act(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return leaky_relu(scale * x + shift) (B, N, C)."""
    out = torch.empty(x.shape, dtype=_stored(x))
    affine, rows = _affine(x, scale, shift, negative_slope), x.shape[0] * x.shape[1]
    _share(channel_loops.affine_forward, rows, x.numel(), *affine, _view(out), *x.shape[1:])
    return out.to(x.dtype)


def scale_shift_act_backward(
    g_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (B, N, C), scale and shift (B, C)."""
    dtype, tiles = compute_dtype(x), _tiles(x.shape[0])
    g_x = torch.empty(x.shape, dtype=_stored(x))
    g_scale, g_shift = torch.empty(scale.shape, dtype=dtype), torch.empty(shift.shape, dtype=dtype)
    inputs = _view(g_out, g_x.dtype), *_affine(x, scale, shift, negative_slope)
    outputs = _view(g_x), _view(g_scale), _view(g_shift)
    _share(channel_loops.affine_backward, x.shape[0] * tiles, x.numel(), *inputs, *outputs, *x.shape[1:], tiles)
    return g_x.to(x.dtype), g_scale.to(scale.dtype), g_shift.to(shift.dtype)


def column_moments(y: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme (B, C), its point arg (B, C), and mean, var (B, C) over the points of y (B, N, C)."""
    dtype, tiles, shape = compute_dtype(y), _tiles(y.shape[0]), (y.shape[0], y.shape[2])
    extreme, arg = torch.empty(shape, dtype=_stored(y)), torch.empty(shape, dtype=torch.int64)
    mean, var = (torch.empty(shape, dtype=dtype) for _ in range(2))
    inputs = _view(y, extreme.dtype), _signs(use_max, dtype)
    outputs = (_view(output) for output in (extreme, arg, mean, var))
    _share(channel_loops.columns_forward, y.shape[0] * tiles, y.numel(), *inputs, *outputs, *y.shape[1:], tiles)
    return extreme.to(y.dtype), arg, mean, var


def column_moments_backward(
    y: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
    activated: Tensor | None = None,
) -> Tensor:
    """Return the gradient of y (B, N, C); a gradient that is None counts as zero.

    activated (B, 4, C) holds scale, shift, right and left: right is added where scale y + shift > 0, left elsewhere.
    """
    g_y = torch.empty(y.shape, dtype=_stored(y))
    _share(
        channel_loops.columns_backward,
        y.shape[0] * y.shape[1],
        y.numel(),
        *(_view(y, g_y.dtype), _view(arg, torch.int32), _view(mean)),
        _view(torch.zeros_like(mean) if g_extreme is None else g_extreme, mean.dtype),
        *_slope_and_curve(mean, g_mean, g_var, y.shape[1]),
        _view(mean.new_zeros(len(mean), 4, mean.shape[1]) if activated is None else activated, mean.dtype),
        *(_view(g_y), *y.shape[1:]),
    )
    return g_y.to(y.dtype)


def mean_act(y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return the mean (B, C) over the points of leaky_relu(scale * y + shift), in the type of sums."""
    return mean_act_parts(y, scale, shift, negative_slope)[:, 0].contiguous()


def mean_act_parts(y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return means (B, 3, C) over the points: of leaky_relu(z), d y and d; z = scale y + shift, d its derivative."""
    tiles = _tiles(y.shape[0])
    parts = torch.empty(y.shape[0], 3, y.shape[2], dtype=compute_dtype(y))
    affine, shape = _affine(y, scale, shift, negative_slope), y.shape[1:]
    _share(channel_loops.affine_mean, y.shape[0] * tiles, y.numel(), *affine, _view(parts), *shape, tiles)
    return parts


def mean_act_backward(
    g_out: Tensor, y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of y (B, N, C), scale and shift (B, C)."""
    dtype = compute_dtype(y)  # a share of the mean's gradient is not rounded to what the features are stored in
    g_points = (g_out.detach().to(dtype).unsqueeze(1) / y.shape[1]).expand(y.shape)
    g_y, g_scale, g_shift = scale_shift_act_backward(g_points, y.to(dtype), scale, shift, negative_slope)
    return g_y.to(y.dtype), g_scale, g_shift


def _affine(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> tuple[Any, ...]:
    dtype = compute_dtype(x)
    factor = _view(scale, dtype)
    return _view(x, _stored(x)), factor, _view(shift, dtype), factor.dtype.type(negative_slope)


def _slope_and_curve(mean: Tensor, g_mean: Tensor | None, g_var: Tensor | None, count: int) -> tuple[Any, Any]:
    zero = torch.zeros_like(mean)
    slope = zero if g_mean is None else g_mean.detach().to(mean.dtype) / count
    curve = zero if g_var is None else g_var.detach().to(mean.dtype) * (2 / count)
    return _view(slope), _view(curve)
