"""What is alike for every point: an affine map with its activation, and moments over the points."""
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from dgcnn_ws.ops.tiles import load, tile
from dgcnn_ws.ops.tiles.moments import store_moments


@triton.jit
def columns_forward(y, use_max, bests, args, sums, num_points, channels, tiles, ROWS: tl.constexpr, COLS: tl.constexpr):
    cloud, rows, cols, inside = tile(num_points, channels, tiles, ROWS, COLS)
    values = load(y + (cloud * num_points + rows) * channels + cols, inside)
    count = tl.sum((rows < num_points).to(values.dtype), 0, keep_dims=True)
    shift = tl.sum(values, 0, keep_dims=True) / count
    centred = tl.where(inside, values - shift, 0)
    store_moments(sums, shift, centred, centred * centred, cols, channels)
    value = tl.where(tl.load(use_max + cols, cols < channels, other=1) != 0, values, -values)
    value = tl.where(value == value, value, float("inf"))  # NaN wins, as in torch
    value = tl.where(inside, value, float("-inf"))  # ties go to the first: never to a row outside
    best, place = tl.max(value, 0, return_indices=True, keep_dims=True)
    at = tl.program_id(0).to(tl.int64) * channels + cols
    tl.store(bests + at, best, cols < channels)
    tl.store(args + at, tl.program_id(0) % tiles * ROWS + place, cols < channels)


@triton.jit
def columns_extreme(y, bests, args, extreme, arg, num_points, channels, tiles, TILES: tl.constexpr, COLS: tl.constexpr):
    """Choose among the extremes of a cloud's tiles."""
    cloud = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    best = tl.full([1, COLS], float("-inf"), bests.dtype.element_ty)
    tile = tl.zeros([1, COLS], tl.int32)
    for first in range(0, tiles, TILES):
        lane = first + tl.arange(0, TILES)[:, None]
        inside = (lane < tiles) & (cols < channels)
        values = tl.load(bests + (cloud * tiles + lane) * channels + cols, inside, other=float("-inf"))
        value, place = tl.max(values, 0, return_indices=True, keep_dims=True)
        best, tile = tl.where(value > best, value, best), tl.where(value > best, first + place, tile)
    point = tl.load(args + (cloud * tiles + tile) * channels + cols, cols < channels, other=0).to(tl.int64)
    value = tl.load(y + (cloud * num_points + point) * channels + cols, cols < channels)
    tl.store(extreme + cloud * channels + cols, value, cols < channels)
    tl.store(arg + cloud * channels + cols, point, cols < channels)


@triton.jit
def columns_backward(
    y, arg, mean, g_extreme, g_mean, g_var, g_y, num_points, channels, tiles,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    cloud, rows, cols, inside = tile(num_points, channels, tiles, ROWS, COLS)
    at, column, exists = (cloud * num_points + rows) * channels + cols, cloud * channels + cols, cols < channels
    gradient = tl.zeros([ROWS, COLS], mean.dtype.element_ty)
    if g_mean is not None:
        gradient += load(g_mean + column, exists) / num_points
    if g_var is not None:
        curve = 2 * load(g_var + column, exists) / num_points
        gradient += curve * (load(y + at, inside) - tl.load(mean + column, exists))
    if g_extreme is not None:
        chosen = tl.load(arg + column, exists, other=0) == rows
        gradient += tl.where(chosen, load(g_extreme + column, exists), 0)
    tl.store(g_y + at, gradient, inside)


@triton.jit
def affine_forward(
    x, scale, shift, out, sums, num_points, channels, tiles,
    SLOPE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Store leaky_relu(scale x + shift) in out, or its sums over the tile's points in sums."""
    cloud, rows, cols, inside = tile(num_points, channels, tiles, ROWS, COLS)
    at, column, exists = (cloud * num_points + rows) * channels + cols, cloud * channels + cols, cols < channels
    z = load(x + at, inside) * load(scale + column, exists) + load(shift + column, exists)
    z = tl.where(z > 0, z, z * SLOPE)
    if out is not None:
        tl.store(out + at, z, inside)
    if sums is not None:
        total = tl.sum(tl.where(inside, z, 0), 0, keep_dims=True)
        tl.store(sums + tl.program_id(0).to(tl.int64) * channels + cols, total, exists)


@triton.jit
def affine_backward(
    g_out, x, scale, shift, g_x, g_scales, g_shifts, num_points, channels, tiles, g_rows,
    SLOPE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Store g_x, and the tile's sums for scale and shift; g_out has g_rows rows a cloud, or one for all."""
    cloud, rows, cols, inside = tile(num_points, channels, tiles, ROWS, COLS)
    at, column, exists = (cloud * num_points + rows) * channels + cols, cloud * channels + cols, cols < channels
    value, factor = load(x + at, inside), load(scale + column, exists)
    gradient = load(g_out + (cloud * g_rows + tl.minimum(rows, g_rows - 1)) * channels + cols, inside)
    z = value * factor + load(shift + column, exists)
    gradient = tl.where(z > 0, gradient, gradient * SLOPE)
    tl.store(g_x + at, gradient * factor, inside)
    place = tl.program_id(0).to(tl.int64) * channels + cols
    tl.store(g_scales + place, tl.sum(gradient * value, 0, keep_dims=True), exists)
    tl.store(g_shifts + place, tl.sum(gradient, 0, keep_dims=True), exists)
