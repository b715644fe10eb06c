"""Nearest neighbours: distances in blocks of rows, and the k smallest of each row."""
# mypy: allow-untyped-defs, allow-incomplete-defs

import triton
import triton.language as tl


@triton.jit
def products(
    x, values, start, count, num_points, axes,
    ROWS: tl.constexpr, COLS: tl.constexpr, AXES: tl.constexpr,
):  # fmt: skip
    """Store |x_j|² - 2 x_i·x_j for the points i = start..start+count-1: the distances less |x_i|²."""
    tiles = tl.cdiv(count, ROWS)
    cloud = (tl.program_id(0) // tiles).to(tl.int64)
    rows = tl.program_id(0) % tiles * ROWS + tl.arange(0, ROWS)
    cols = tl.program_id(1) * COLS + tl.arange(0, COLS)
    points = x + cloud * num_points * axes
    product, squares = tl.zeros([ROWS, COLS], tl.float32), tl.zeros([COLS], tl.float32)
    for first in range(0, axes, AXES):
        axis = first + tl.arange(0, AXES)[None, :]
        i, j = (start + rows).to(tl.int64)[:, None], cols.to(tl.int64)[:, None]
        x_i = tl.load(points + i * axes + axis, (i < num_points) & (axis < axes), other=0)
        x_j = tl.load(points + j * axes + axis, (j < num_points) & (axis < axes), other=0)
        # Not torch's product: TF32, which picks wrong neighbours, is switched there for a whole process.
        product = tl.dot(x_i, tl.trans(x_j), product, input_precision="ieee")
        squares += tl.sum(x_j * x_j, 1)
    at = (cloud * count + rows)[:, None] * num_points + cols[None, :]
    inside = (rows < count)[:, None] & (cols < num_points)[None, :]
    tl.store(values + at, squares[None, :] - 2 * product, inside)


@triton.jit
def key(values):
    """Return integers in the order of the values; NaN counts as infinite."""
    values = tl.where(values < float("inf"), values, float("inf"))
    if values.dtype == tl.float64:
        bits = values.to(tl.int64, bitcast=True)
        return bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    else:
        bits = values.to(tl.int32, bitcast=True)
        return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def row_keys(source, cloud, i, rows, cols, count, num_points, axes):
    """Return the keys of the distances from the points i, (ROWS, 1), to the points cols, (1, BLOCK).

    They are read from rows of source, or taken from the coordinates in it. Beyond the last point they exceed
    that of an infinite distance.
    """
    inside = cols < num_points
    if axes is None:
        at = (cloud * count + rows) * num_points + cols
        keys = key(tl.load(source + at, (rows < count) & inside, other=0))
    else:
        values = tl.zeros((i + cols).shape, source.dtype.element_ty)
        for axis in range(axes):
            coordinates = source + (cloud * axes + axis) * num_points
            difference = tl.load(coordinates + cols, inside, other=0)
            difference = difference - tl.load(coordinates + i, rows < count, other=0)
            values += difference * difference
        keys = key(values)
    if keys.dtype == tl.int64:
        return tl.where(inside, keys, 0x7FFFFFFFFFFFFFFF)
    else:
        return tl.where(inside, keys, 0x7FFFFFFF)


@triton.jit
def select(
    source, idx, start, count, num_points, axes, k,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, ONE_BLOCK: tl.constexpr,
):  # fmt: skip
    """Fill idx (B, N, k) in the rows start..start+count-1 of each cloud with the k nearest points.

    Bisects for a bound that k keys stay below, and stops at the first: some fifteen counts for any k, where
    taking one minimum after another needs k. Among keys equal to the last bound the first points win.
    """
    groups = tl.cdiv(count, ROWS)
    cloud = (tl.program_id(0) // groups).to(tl.int64)
    rows = tl.program_id(0) % groups * ROWS + tl.arange(0, ROWS)[:, None]
    i, cols = start + rows, tl.arange(0, BLOCK)[None, :]
    keys = row_keys(source, cloud, i, rows, cols, count, num_points, axes)
    low = key(tl.full([ROWS, 1], float("-inf"), source.dtype.element_ty))
    high = key(tl.full([ROWS, 1], float("inf"), source.dtype.element_ty))
    below = tl.zeros([ROWS, 1], tl.int32)  # how many keys are less than low
    while tl.max((low < high).to(tl.int32)) > 0:
        middle = (low & high) + ((low ^ high) >> 1)  # their mean, rounded down, without overflow
        found = tl.zeros([ROWS, 1], tl.int32)
        for first in range(0, num_points, BLOCK):
            if not ONE_BLOCK:
                keys = row_keys(source, cloud, i, rows, first + cols, count, num_points, axes)
            found += tl.sum((keys <= middle).to(tl.int32), 1, keep_dims=True)
        searching = low < high
        below = tl.where(searching & (found <= k), found, below)
        low = tl.where(searching & (found <= k), middle + 1, low)
        high = tl.where(searching, tl.where(found == k, middle + 1, tl.where(found > k, middle, high)), high)
    out, equal_from = idx + (cloud * num_points + i) * k, below
    below = tl.zeros([ROWS, 1], tl.int32)
    for first in range(0, num_points, BLOCK):
        if not ONE_BLOCK:
            keys = row_keys(source, cloud, i, rows, first + cols, count, num_points, axes)
        less, equal = (keys < low).to(tl.int32), (keys == low).to(tl.int32)
        place = tl.where(less != 0, below + tl.cumsum(less, 1), equal_from + tl.cumsum(equal, 1)) - 1
        chosen = (less + equal != 0) & (place < k) & (rows < count)
        tl.store(out + place, (first + cols).to(tl.int64) + tl.zeros_like(place), chosen)
        below += tl.sum(less, 1, keep_dims=True)
        equal_from += tl.sum(equal, 1, keep_dims=True)
