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
from dgcnn_ws.ops.loops import edges as edge_loops
from dgcnn_ws.ops.loops import search as search_loops
from dgcnn_ws.ops.product import linear
from dgcnn_ws.ops.reference import arg_dtype, compute_dtype

BLOCK_BYTES = 2**22  # one block of products: larger spills from the cache, smaller calls torch more often
MAX_AXES = 16  # coordinates up to which differences are quicker than a product and its memory
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
    return x.detach().to(dtype or x.dtype).contiguous().numpy()


def _tiles(batch: int) -> int:
    threads = torch.get_num_threads()
    return threads // gcd(batch, threads)


def _signs(use_max: Tensor, dtype: torch.dtype) -> Any:
    return _view(use_max.to(dtype) * 2 - 1)


def _rough_mean(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mean (B, C) of some sixteen of the points: squares taken about it do not cancel."""
    return x.detach()[:, :: max(1, x.shape[1] // 16)].to(dtype).mean(1)


def _products_are_exact() -> bool:
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    precision = getattr(matmul, "fp32_precision", None)
    return precision in ("none", "ieee") if precision else torch.get_float32_matmul_precision() == "highest"


def knn(x: Tensor, k: int) -> Tensor:
    """Return idx (B, N, k) int64 of the k nearest neighbours of each point in x (B, N, C)."""
    x = x.detach().to(compute_dtype(x))
    idx = torch.empty(*x.shape[:2], k, dtype=torch.int64)
    search = _knn_by_differences if x.shape[2] <= MAX_AXES else _knn_by_products
    for cloud, out in zip(x, idx, strict=True):
        search(cloud, out)
    return idx


def _knn_by_differences(cloud: Tensor, idx: Tensor) -> None:
    num_points = cloud.shape[0]
    _share(search_loops.nearest_by_differences, num_points, num_points**2, _view(cloud.T), idx.numpy())


def _knn_by_products(cloud: Tensor, idx: Tensor) -> None:
    num_points = cloud.shape[0]
    cloud = cloud - cloud.mean(0)  # or squares and products would be large, and their difference rounded
    if not _products_are_exact():  # someone allowed rounded float32 products
        cloud = cloud.double()
    squares = cloud.square().sum(1).numpy()
    rows = min(num_points, max(64, BLOCK_BYTES // (cloud.element_size() * num_points)))
    for start in range(0, num_points, rows):
        count = min(rows, num_points - start)
        with torch.autocast("cpu", enabled=False):
            products = linear(cloud[start : start + count], cloud).numpy()
        block = products, squares, idx[start : start + count].numpy()
        _share(search_loops.nearest_by_products, count, count * num_points, *block)


def edge_aggregate(ab: Tensor, idx: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme (B, N, C), its slot arg (B, N, C), and mean, var (B, C) of y_ij = a_j + b_i."""
    dtype, (batch, num_points, k), channels = compute_dtype(ab), idx.shape, ab.shape[2] // 2
    extreme = torch.empty(batch, num_points, channels, dtype=dtype)
    arg = torch.empty(batch, num_points, channels, dtype=arg_dtype(k))
    pieces = 16 // gcd(batch, 16)  # not the number of threads, so that the sums do not depend on it
    sums = torch.empty(batch, pieces, 2, channels, dtype=torch.float64)
    shift = torch.stack(_rough_mean(ab, dtype).chunk(2, dim=-1)).sum(0)
    _share(
        edge_loops.edge_forward,
        batch * pieces,
        extreme.numel() * k,
        _view(ab, dtype),
        _view(idx, torch.int64),
        _signs(use_max, dtype),
        extreme.numpy(),
        arg.numpy(),
        sums.numpy(),
        shift.numpy(),
    )
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
    dtype, (batch, num_points, k) = mean.dtype, idx.shape
    idx_view, g_ab = _view(idx, torch.int64), torch.empty(ab.shape, dtype=dtype)
    offsets = torch.empty(batch, num_points + 1, dtype=torch.int32).numpy()
    edges = torch.empty(batch, num_points * k, dtype=torch.int32).numpy()
    _share(edge_loops.transpose_graph, batch, idx.numel(), idx_view, offsets, edges)
    statistics = g_mean is not None or g_var is not None
    _share(
        edge_loops.edge_backward,
        batch * num_points,
        arg.numel() * k,
        _view(ab, dtype),
        idx_view,
        offsets,
        edges,
        _view(arg),
        _view(mean),
        _view(torch.zeros(arg.shape) if g_extreme is None else g_extreme, dtype),
        *_slope_and_curve(mean, g_mean, g_var, num_points * k),
        statistics,
        g_ab.numpy(),
    )
    return g_ab.to(ab.dtype)


def scale_shift_act(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return leaky_relu(scale * x + shift) (B, N, C)."""
    out = torch.empty(x.shape, dtype=compute_dtype(x))
    _share(
        channel_loops.affine_forward,
        x.shape[0] * x.shape[1],
        x.numel(),
        *_affine(x, scale, shift, negative_slope),
        out.numpy(),
    )
    return out.to(x.dtype)


def scale_shift_act_backward(
    g_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (B, N, C), scale and shift (B, C)."""
    dtype, tiles = compute_dtype(x), _tiles(x.shape[0])
    g_x = torch.empty(x.shape, dtype=dtype)
    g_scale, g_shift = torch.empty(scale.shape, dtype=dtype), torch.empty(shift.shape, dtype=dtype)
    _share(
        channel_loops.affine_backward,
        x.shape[0] * tiles,
        x.numel(),
        _view(g_out, dtype),
        *_affine(x, scale, shift, negative_slope),
        g_x.numpy(),
        g_scale.numpy(),
        g_shift.numpy(),
        tiles,
    )
    return g_x.to(x.dtype), g_scale.to(scale.dtype), g_shift.to(shift.dtype)


def column_moments(y: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme (B, C), its point arg (B, C), and mean, var (B, C) over the points of y (B, N, C)."""
    dtype, tiles = compute_dtype(y), _tiles(y.shape[0])
    extreme, mean, var = (torch.empty(y.shape[0], y.shape[2], dtype=dtype) for _ in range(3))
    arg = torch.empty(extreme.shape, dtype=torch.int64)
    _share(
        channel_loops.columns_forward,
        y.shape[0] * tiles,
        y.numel(),
        _view(y, dtype),
        _signs(use_max, dtype),
        extreme.numpy(),
        arg.numpy(),
        mean.numpy(),
        var.numpy(),
        _rough_mean(y, dtype).numpy(),
        tiles,
    )
    return extreme.to(y.dtype), arg, mean, var


def column_moments_backward(
    y: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
) -> Tensor:
    """Return the gradient of y (B, N, C); a gradient that is None counts as zero."""
    dtype, tiles = mean.dtype, _tiles(y.shape[0])
    g_y = torch.empty(y.shape, dtype=dtype)
    _share(
        channel_loops.columns_backward,
        y.shape[0] * tiles,
        y.numel(),
        _view(y, dtype),
        _view(arg),
        _view(mean),
        _view(torch.zeros_like(mean) if g_extreme is None else g_extreme, dtype),
        *_slope_and_curve(mean, g_mean, g_var, y.shape[1]),
        g_y.numpy(),
        tiles,
    )
    return g_y.to(y.dtype)


def mean_act(y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return the mean (B, C) over the points of leaky_relu(scale * y + shift)."""
    out, tiles = torch.empty(scale.shape, dtype=compute_dtype(y)), _tiles(y.shape[0])
    _share(
        channel_loops.affine_mean,
        y.shape[0] * tiles,
        y.numel(),
        *_affine(y, scale, shift, negative_slope),
        out.numpy(),
        tiles,
    )
    return out.to(y.dtype)


def mean_act_backward(
    g_out: Tensor, y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of y (B, N, C), scale and shift (B, C)."""
    g_point = g_out.detach().to(compute_dtype(y)).unsqueeze(1) / y.shape[1]  # (B, 1, C)
    return scale_shift_act_backward(g_point, y, scale, shift, negative_slope)


def _affine(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> tuple[Any, ...]:
    dtype = compute_dtype(x)
    factor = _view(scale, dtype)
    return _view(x, dtype), factor, _view(shift, dtype), factor.dtype.type(negative_slope)


def _slope_and_curve(mean: Tensor, g_mean: Tensor | None, g_var: Tensor | None, count: int) -> tuple[Any, Any]:
    zero = torch.zeros_like(mean)
    slope = zero if g_mean is None else g_mean.detach().to(mean.dtype) / count
    curve = zero if g_var is None else g_var.detach().to(mean.dtype) * (2 / count)
    return _view(slope), _view(curve)
