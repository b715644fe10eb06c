"""The operators on CUDA: Triton kernels. Same functions and signatures as `reference`.

Sums are taken in an order that the shapes decide, so results repeat to the bit. Nothing waits for the device
and grids follow from shapes alone, so that calls can be captured in a CUDA graph.
"""

from typing import Any

import torch
from torch import Tensor
from triton import cdiv, next_power_of_2

from dgcnn_ws.ops.reference import arg_dtype, compute_dtype
from dgcnn_ws.ops.tiles import channels as channel_tiles
from dgcnn_ws.ops.tiles import edges as edge_tiles
from dgcnn_ws.ops.tiles import moments as moment_tiles
from dgcnn_ws.ops.tiles import search as search_tiles

BLOCK_BYTES = 2**26  # one block of distances: rows enough to fill the device, and little memory
MAX_AXES = 16  # coordinates up to which differences are quicker than a product and its memory
MAX_ROW = 4096  # distances that selection keeps in registers; longer rows are read again at every count
EDGE_TILE = 1024  # entries of a tile that gathers: eight a thread leave registers for six running values
BACKWARD_TILE = 512  # the same by reversed edges: a tile takes as long as its most popular point
TILE = 4096  # entries of a tile that streams
COMBINED = 32  # tiles whose sums are combined at a time


def _launch(kernel: Any, grid: tuple[int, ...], *args: Any, **constants: Any) -> None:
    if 0 not in grid:
        with torch.cuda.device_of(args[0]):
            kernel[grid](*args, **constants)


def _blocks(x: Tensor, channels: int, entries: int) -> tuple[int, tuple[int, int], dict[str, int]]:
    """Return tiles a cloud, the grid, and the sides of a tile of x (B, N, ...) over so many channels."""
    cols = min(64, next_power_of_2(channels)) if channels else 1
    rows = min(entries // cols, next_power_of_2(x.shape[1]))
    tiles = cdiv(x.shape[1], rows)
    return tiles, (x.shape[0] * tiles, cdiv(channels, cols)), {"ROWS": rows, "COLS": cols}


def _bytes(use_max: Tensor) -> Tensor:
    return use_max.contiguous().view(torch.uint8)


def _optional(*gradients: Tensor | None) -> list[Tensor | None]:
    return [None if gradient is None else gradient.contiguous() for gradient in gradients]


def knn(x: Tensor, k: int) -> Tensor:
    """Return idx (B, N, k) int64 of the k nearest neighbours of each point in x (B, N, C)."""
    x = x.to(compute_dtype(x))
    batch, num_points, axes = x.shape
    idx = torch.empty(batch, num_points, k, dtype=torch.int64, device=x.device)
    grid: tuple[int, ...]
    block = min(MAX_ROW, next_power_of_2(num_points))
    # A warp a row where it can hold one: counting then needs no shared memory.
    group = max(1, 1024 // block)
    how = {"ROWS": group, "BLOCK": block, "ONE_BLOCK": block >= num_points, "num_warps": max(1, block // 1024)}
    if axes <= MAX_AXES or x.dtype == torch.float64:
        source = x.mT.contiguous()
        grid = (batch * cdiv(num_points, group),)
        _launch(search_tiles.select, grid, source, idx, 0, num_points, num_points, axes, k, **how)
        return idx
    x = (x - x.mean(1, keepdim=True)).contiguous()  # or squares and products would be large, and rounded
    rows = max(64, BLOCK_BYTES // (4 * max(1, batch) * num_points) // 64 * 64)
    for start in range(0, num_points, rows):
        count = min(rows, num_points - start)
        values = torch.empty(batch, count, num_points, dtype=x.dtype, device=x.device)
        grid = batch * cdiv(count, 64), cdiv(num_points, 64)
        sides = {"ROWS": 64, "COLS": 64, "AXES": 32}
        _launch(search_tiles.products, grid, x, values, start, count, num_points, axes, **sides)
        grid = (batch * cdiv(count, group),)
        _launch(search_tiles.select, grid, values, idx, start, count, num_points, None, k, **how)
    return idx


def edge_aggregate(ab: Tensor, idx: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme (B, N, C), its slot arg (B, N, C), and mean, var (B, C) of y_ij = a_j + b_i."""
    ab, idx = ab.contiguous(), idx.contiguous()
    (batch, num_points, k), channels = idx.shape, ab.shape[2] // 2
    tiles, grid, sides = _blocks(ab, channels, EDGE_TILE)
    extreme = ab.new_empty(batch, num_points, channels)
    arg = torch.empty(extreme.shape, dtype=arg_dtype(k), device=ab.device)
    sums = ab.new_empty(batch, tiles, 3, channels, dtype=compute_dtype(ab))
    inputs = ab, idx, _bytes(use_max), extreme, arg, sums
    _launch(edge_tiles.edge_forward, grid, *inputs, num_points, k, channels, tiles, **sides)
    return extreme, arg, *_combine(sums, num_points, k, sides["ROWS"])


def edge_aggregate_backward(
    ab: Tensor,
    idx: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
) -> Tensor:
    """Return the gradient of ab (B, N, 2C); a gradient that is None counts as zero.

    Gathered along the reversed edges, not scattered by atomics: those add in an order that changes from run to
    run, and collide where many edges reach one point. Sorting the edges takes less than the gathering.
    """
    ab, idx = ab.contiguous(), idx.contiguous()
    (batch, num_points, k), channels = idx.shape, mean.shape[1]
    points, device = batch * num_points, ab.device
    narrow = torch.int32 if points < 2**31 else torch.int64  # half the passes of a radix sort
    first = torch.arange(0, points, num_points, dtype=narrow, device=device)
    # One sort of all clouds: torch sorts long rows of a matrix one after another.
    reached, edges = torch.sort((idx.to(narrow) + first.view(-1, 1, 1)).view(-1), stable=True)
    offsets = torch.searchsorted(reached, torch.arange(points + 1, dtype=narrow, device=device))
    tiles, grid, sides = _blocks(ab, channels, BACKWARD_TILE)
    g_ab = torch.empty_like(ab)
    inputs = ab, idx, offsets, edges, arg.contiguous(), mean.contiguous()
    gradients, shape = _optional(g_extreme, g_mean, g_var), (num_points, k, channels, tiles)
    _launch(edge_tiles.edge_backward, grid, *inputs, *gradients, g_ab, *shape, **sides)
    return g_ab


def scale_shift_act(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return leaky_relu(scale * x + shift) (B, N, C)."""
    x, (num_points, channels) = x.contiguous(), x.shape[1:]
    tiles, grid, sides = _blocks(x, channels, TILE)
    out = torch.empty_like(x)
    inputs = x, scale.contiguous(), shift.contiguous(), out, None
    shape = num_points, channels, tiles
    _launch(channel_tiles.affine_forward, grid, *inputs, *shape, SLOPE=negative_slope, **sides)
    return out


def scale_shift_act_backward(
    g_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (B, N, C), scale and shift (B, C); g_out is (B, N, C), or (B, 1, C) for all."""
    x, (batch, num_points, channels) = x.contiguous(), x.shape
    tiles, grid, sides = _blocks(x, channels, TILE)
    g_x = torch.empty_like(x)
    sums = x.new_empty(2, batch, tiles, channels, dtype=compute_dtype(x))
    inputs = g_out.contiguous(), x, scale.contiguous(), shift.contiguous(), g_x, sums[0], sums[1]
    shape = num_points, channels, tiles, g_out.shape[1]
    _launch(channel_tiles.affine_backward, grid, *inputs, *shape, SLOPE=negative_slope, **sides)
    g_scale, g_shift = (part.sum(1, dtype=torch.float64) for part in sums)
    return g_x, g_scale.to(scale.dtype), g_shift.to(shift.dtype)


def column_moments(y: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme (B, C), its point arg (B, C), and mean, var (B, C) over the points of y (B, N, C)."""
    y, (batch, num_points, channels) = y.contiguous(), y.shape
    tiles, grid, sides = _blocks(y, channels, TILE)
    bests = y.new_empty(batch, tiles, channels, dtype=compute_dtype(y))
    args = torch.empty(bests.shape, dtype=torch.int32, device=y.device)
    sums = y.new_empty(batch, tiles, 3, channels, dtype=bests.dtype)
    inputs = y, _bytes(use_max), bests, args, sums
    _launch(channel_tiles.columns_forward, grid, *inputs, num_points, channels, tiles, **sides)
    extreme = y.new_empty(batch, channels)
    arg = torch.empty(batch, channels, dtype=torch.int64, device=y.device)
    inputs, grid = (y, bests, args, extreme, arg), (batch, cdiv(channels, 32))
    shape = num_points, channels, tiles
    _launch(channel_tiles.columns_extreme, grid, *inputs, *shape, TILES=COMBINED, COLS=32)
    return extreme, arg, *_combine(sums, num_points, 1, sides["ROWS"])


def column_moments_backward(
    y: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
) -> Tensor:
    """Return the gradient of y (B, N, C); a gradient that is None counts as zero."""
    y, (num_points, channels) = y.contiguous(), y.shape[1:]
    tiles, grid, sides = _blocks(y, channels, TILE)
    g_y = torch.empty_like(y)
    inputs = y, arg.contiguous(), mean.contiguous(), *_optional(g_extreme, g_mean, g_var), g_y
    _launch(channel_tiles.columns_backward, grid, *inputs, num_points, channels, tiles, **sides)
    return g_y


def mean_act(y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return the mean (B, C) over the points of leaky_relu(scale * y + shift), in the type of sums."""
    y, (batch, num_points, channels) = y.contiguous(), y.shape
    tiles, grid, sides = _blocks(y, channels, TILE)
    sums = y.new_empty(batch, tiles, channels, dtype=compute_dtype(y))
    inputs = y, scale.contiguous(), shift.contiguous(), None, sums
    shape = num_points, channels, tiles
    _launch(channel_tiles.affine_forward, grid, *inputs, *shape, SLOPE=negative_slope, **sides)
    return (sums.sum(1, dtype=torch.float64) / num_points).to(sums.dtype)


def mean_act_backward(
    g_out: Tensor, y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of y (B, N, C), scale and shift (B, C)."""
    g_point = g_out.to(compute_dtype(y)).unsqueeze(1) / y.shape[1]  # (B, 1, C)
    return scale_shift_act_backward(g_point, y, scale, shift, negative_slope)


def _combine(sums: Tensor, num_points: int, edges: int, rows: int) -> tuple[Tensor, Tensor]:
    """Return mean and var (B, C) from the sums (B, tiles, 3, C) of tiles of so many rows."""
    batch, tiles, _, channels = sums.shape
    mean, var = (sums.new_empty(batch, channels) for _ in range(2))
    sides, grid = {"ROWS": rows, "TILES": COMBINED, "COLS": 32}, (batch, cdiv(channels, 32))
    shape = num_points, edges, channels, tiles
    _launch(moment_tiles.combine_moments, grid, sums, mean, var, *shape, **sides)
    return mean, var
