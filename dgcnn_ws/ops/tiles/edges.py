"""Reductions over the edges of a graph, and the gradient, which is gathered along the reversed edges."""
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl

from dgcnn_ws.ops.tiles import load, tile
from dgcnn_ws.ops.tiles.moments import store_moments


@triton.jit
def edge_forward(
    ab, idx, use_max, extreme, arg, sums, num_points, k, channels, tiles,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    cloud, rows, cols, inside = tile(num_points, channels, tiles, ROWS, COLS)
    at, exists = cloud * num_points + rows, rows < num_points
    maximum = tl.load(use_max + cols, cols < channels, other=1) != 0
    features = ab + cloud * num_points * 2 * channels + cols
    b = load(ab + at * 2 * channels + channels + cols, inside)
    # The moments are taken about the mean of the tile's first edges: squares about it do not cancel.
    first = tl.load(idx + at * k, exists, other=0).to(tl.int64)
    y = load(features + first * 2 * channels, inside) + b
    shift = tl.sum(y, 0, keep_dims=True) / tl.sum(exists.to(y.dtype), 0, keep_dims=True)
    best, place = tl.full([ROWS, COLS], float("-inf"), b.dtype), tl.zeros([ROWS, COLS], tl.int32)
    total, square = tl.zeros([ROWS, COLS], b.dtype), tl.zeros([ROWS, COLS], b.dtype)
    for slot in range(k):
        j = tl.load(idx + at * k + slot, exists, other=0).to(tl.int64)
        a = load(features + j * 2 * channels, inside)
        value = tl.where(maximum, a, -a)
        better = (value > best) | (value != value)  # NaN wins, as in torch
        best, place = tl.where(better, value, best), tl.where(better, slot, place)
        y = tl.where(inside, (a + b) - shift, 0)
        total += y
        square += y * y
    tl.store(extreme + at * channels + cols, b + tl.where(maximum, best, -best), inside)
    tl.store(arg + at * channels + cols, place.to(arg.dtype.element_ty), inside)
    store_moments(sums, shift, total, square, cols, channels)


@triton.jit
def edge_backward(
    ab, idx, offsets, edges, arg, mean, g_extreme, g_mean, g_var, g_ab, num_points, k, channels, tiles,
    ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Gather the gradient of ab for a tile; t_ij = slope + curve (a_j + b_i - mean).

    g_b_i sums t over the edges that leave i, and adds g_extreme_i; g_a_j sums t over the edges that reach j,
    and those g_extreme_i that chose j.
    """
    cloud, rows, cols, inside = tile(num_points, channels, tiles, ROWS, COLS)
    at, exists, column = cloud * num_points + rows, rows < num_points, cloud * channels + cols
    a = load(ab + at * 2 * channels + cols, inside)
    b = load(ab + at * 2 * channels + channels + cols, inside)
    centre = tl.load(mean + column, cols < channels, other=0)
    begin = tl.load(offsets + at, exists, other=0)
    degree = tl.load(offsets + at + 1, exists, other=0) - begin
    g_a, g_b = tl.zeros([ROWS, COLS], centre.dtype), tl.zeros([ROWS, COLS], centre.dtype)
    if g_mean is not None:
        slope = load(g_mean + column, cols < channels) / num_points / k
        g_a += slope * degree
        g_b += slope * k
    if g_extreme is not None:
        g_b += load(g_extreme + at * channels + cols, inside)
    if g_var is not None:
        curve = 2 * load(g_var + column, cols < channels) / num_points / k
        total = tl.zeros([ROWS, COLS], centre.dtype)
        for slot in range(k):
            j = cloud * num_points + tl.load(idx + at * k + slot, exists, other=0)
            total += load(ab + j * 2 * channels + cols, inside) + b - centre
        g_b += curve * total
    if g_var is not None or g_extreme is not None:
        total, chosen = tl.zeros([ROWS, COLS], centre.dtype), tl.zeros([ROWS, COLS], centre.dtype)
        for place in range(0, tl.max(degree).to(tl.int32)):
            here = (place < degree) & inside
            edge = tl.load(edges + begin + place, place < degree, other=0)
            # Within a cloud 32 bits are enough, and their division is several times faster.
            local = (edge - cloud * num_points * k).to(tl.int32)
            i = cloud * num_points + local // k
            if g_var is not None:
                b_i = load(ab + i * 2 * channels + channels + cols, here)
                total += tl.where(here, a + b_i - centre, 0)
            if g_extreme is not None:
                slot_of_best = tl.load(arg + i * channels + cols, here, other=0).to(tl.int32)
                gradient = load(g_extreme + i * channels + cols, here)
                chosen += tl.where(slot_of_best == local % k, gradient, 0)
        if g_var is not None:
            g_a += curve * total
        g_a += chosen
    tl.store(g_ab + at * 2 * channels + cols, g_a, inside)
    tl.store(g_ab + at * 2 * channels + channels + cols, g_b, inside)
