"""Mean and variance in two steps: a tile about its own shift, then all tiles of a cloud in float64."""
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl


@triton.jit
def store_moments(sums, shift, total, square, cols, channels):
    """Store one tile's shift, Σ(y - shift) and Σ(y - shift)²."""
    at = sums + tl.program_id(0).to(tl.int64) * 3 * channels + cols
    tl.store(at, shift, cols < channels)
    tl.store(at + channels, tl.sum(total, 0, keep_dims=True), cols < channels)
    tl.store(at + 2 * channels, tl.sum(square, 0, keep_dims=True), cols < channels)


@triton.jit
def combine_moments(
    sums, mean, var, num_points, edges, channels, tiles,
    ROWS: tl.constexpr, TILES: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    """Pool the moments of a cloud's tiles of ROWS points, with so many edges each, in float64."""
    cloud = tl.program_id(0).to(tl.int64)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)[None, :]
    total = tl.zeros([TILES, COLS], tl.float64)
    for first in range(0, tiles, TILES):
        tile = first + tl.arange(0, TILES)[:, None]
        at, inside = sums + (cloud * tiles + tile) * 3 * channels + cols, (tile < tiles) & (cols < channels)
        count = (tl.minimum(num_points - tile * ROWS, ROWS) * edges).to(tl.float64)
        total += count * tl.load(at, inside, other=0).to(tl.float64)
        total += tl.load(at + channels, inside, other=0)
    all_edges = (tl.zeros([1, 1], tl.float64) + num_points) * edges
    centre = tl.sum(total, 0, keep_dims=True) / all_edges
    spread = tl.zeros([TILES, COLS], tl.float64)
    for first in range(0, tiles, TILES):
        tile = first + tl.arange(0, TILES)[:, None]
        at, inside = sums + (cloud * tiles + tile) * 3 * channels + cols, (tile < tiles) & (cols < channels)
        count = (tl.minimum(num_points - tile * ROWS, ROWS) * edges).to(tl.float64)
        gap = tl.load(at, inside, other=0).to(tl.float64) - centre
        square = tl.load(at + 2 * channels, inside, other=0)
        spread += tl.where(inside, gap * (gap * count + 2 * tl.load(at + channels, inside, other=0)) + square, 0)
    variance = tl.sum(spread, 0, keep_dims=True) / all_edges
    tl.store(mean + cloud * channels + cols, centre, cols < channels)
    # Not tl.maximum, which would turn NaN into 0.
    tl.store(var + cloud * channels + cols, tl.where(variance < 0, 0, variance), cols < channels)
