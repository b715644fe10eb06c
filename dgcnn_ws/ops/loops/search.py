"""Nearest neighbours: distances row by row, and the k smallest of each row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import compiled

Floats = NDArray[Any]  # float32 or float64, the same for all arguments of a call
Ints = NDArray[Any]


@compiled
def _kth_smallest(values: Floats, ranks: Ints, count: int, k: int) -> Any:
    """Return the k-th smallest of values[:count], and may reorder them."""
    if count <= 96:  # count^2 comparisons, but many at a time and no misprediction
        ranks[:count] = 0
        unrolled = count // 4 * 4
        for i in range(0, unrolled, 4):
            v0, v1, v2, v3 = values[i], values[i + 1], values[i + 2], values[i + 3]
            for j in range(count):
                value = values[j]
                ranks[j] += np.int32(v0 < value) + np.int32(v1 < value)
                ranks[j] += np.int32(v2 < value) + np.int32(v3 < value)
        for i in range(unrolled, count):
            v0 = values[i]
            for j in range(count):
                ranks[j] += np.int32(v0 < values[j])
        smallest = values[0]
        highest = -1
        for j in range(count):
            if highest < ranks[j] < k:
                smallest, highest = values[j], ranks[j]
        return smallest
    left, right = 0, count - 1
    while left < right:  # Hoare's quickselect
        pivot = values[(left + right) // 2]
        i, j = left, right
        while i <= j:
            while values[i] < pivot:
                i += 1
            while pivot < values[j]:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            right = j
        elif k - 1 >= i:
            left = i
        else:
            break
    return values[k - 1]


@compiled
def _select_smallest(row: Floats, scratch: Floats, minima: Floats, places: Ints, out: Ints) -> None:
    """Fill out (k,) with the places of the k smallest values of a row without NaN.

    The row is dealt out to lanes. The k-th smallest of their minima is at least the row's k-th smallest value
    and seldom much more, so that a handful of candidates in k lanes is left to select among.
    """
    size, lanes, k = row.shape[0], minima.shape[0], out.shape[0]
    ranks, candidates, chosen = places[0], places[1], places[2]
    count = 0
    if lanes:
        minima[:] = row[:lanes]
        for first in range(lanes, size, lanes):
            values = row[first : min(first + lanes, size)]
            for lane in range(values.shape[0]):
                value, smallest = values[lane], minima[lane]
                minima[lane] = value if value < smallest else smallest
        scratch[:lanes] = minima
        bound = _kth_smallest(scratch, ranks, lanes, k)
        num_chosen = 0
        for lane in range(lanes):
            chosen[num_chosen] = lane
            num_chosen += minima[lane] <= bound
        for lane in range(num_chosen):
            for j in range(chosen[lane], size, lanes):
                candidates[count] = j
                count += row[j] <= bound
    else:
        count = size
        for j in range(size):
            candidates[j] = j
    for c in range(count):
        scratch[c] = row[candidates[c]]
    bound = _kth_smallest(scratch, ranks, count, k)
    filled = 0
    for c in range(count):  # fewer than k are smaller than the k-th: the next place to fill always exists
        out[filled] = candidates[c]
        filled += row[candidates[c]] < bound
    for c in range(count):
        if row[candidates[c]] == bound:
            out[filled] = candidates[c]
            filled += 1
            if filled == k:
                break


@compiled
def _num_lanes(size: int, k: int) -> int:
    lanes = max(64, (3 * k + 15) // 16 * 16)
    return lanes if 3 * lanes <= size else 0


@compiled
def nearest_by_products(products: Floats, squares: Floats, idx: Ints, start: int, stop: int) -> None:
    """Fill idx[i] (k,) with the places of the k smallest of squares - 2 products[i], for each row i."""
    size = squares.shape[0]
    two, infinity = squares.dtype.type(2), squares.dtype.type(np.inf)
    row, scratch, places = np.empty_like(squares), np.empty_like(squares), np.empty((3, size), np.int32)
    minima = np.empty(_num_lanes(size, idx.shape[1]), squares.dtype)
    for i in range(start, stop):
        product = products[i]
        for j in range(size):
            value = squares[j] - two * product[j]
            row[j] = value if value < infinity else infinity  # NaN too: every later comparison is sound
        _select_smallest(row, scratch, minima, places, idx[i])


@compiled
def nearest_by_differences(axes: Floats, idx: Ints, start: int, stop: int) -> None:
    """Fill idx[i] (k,) with the k points nearest to point i, of coordinates axes (C, N)."""
    num_axes, size = axes.shape
    infinity = axes.dtype.type(np.inf)
    row, scratch, places = np.empty_like(axes[0]), np.empty_like(axes[0]), np.empty((3, size), np.int32)
    minima = np.empty(_num_lanes(size, idx.shape[1]), axes.dtype)
    for i in range(start, stop):
        row[:] = 0
        for axis in range(num_axes):
            coordinates, origin = axes[axis], axes[axis, i]
            for j in range(size):
                difference = coordinates[j] - origin
                value = row[j] + difference * difference
                row[j] = value if value < infinity else infinity
        _select_smallest(row, scratch, minima, places, idx[i])
