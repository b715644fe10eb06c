"""Nearest neighbours: distances row by row, and the k smallest of each row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import Index, compiled

Floats = NDArray[Any]  # float32 or float64, the same for all arguments of a call
Ints = NDArray[Any]

_ZERO, _ONE, _TWO, _THREE, _FOUR = (Index(n) for n in range(5))
_FEW = Index(96)  # numbers up to which counting is quicker than partitioning


@compiled
def _kth_smallest(values: Floats, ranks: Ints, count: int, k: int) -> Any:
    """Return the k-th smallest of values[:count], and may reorder them."""
    if count <= _FEW:  # count^2 comparisons, but many at a time and no misprediction
        for j in range(count):
            ranks[j] = 0
        unrolled = count // _FOUR * _FOUR
        for i in range(_ZERO, unrolled, _FOUR):
            v0, v1, v2, v3 = values[i], values[i + _ONE], values[i + _TWO], values[i + _THREE]
            for j in range(count):
                value = values[j]
                ranks[j] += np.int32(v0 < value) + np.int32(v1 < value) + np.int32(v2 < value) + np.int32(v3 < value)
        for i in range(unrolled, count):
            v0 = values[i]
            for j in range(count):
                ranks[j] += np.int32(v0 < values[j])
        smallest, highest, below = values[0], np.int32(-1), np.int32(k)
        for j in range(count):
            if highest < ranks[j] < below:
                smallest, highest = values[j], ranks[j]
        return smallest
    wanted, left, right = np.int64(k) - 1, np.int64(0), np.int64(count) - 1
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
        if wanted <= j:
            right = j
        elif wanted >= i:
            left = i
        else:
            break
    return values[wanted]


@compiled
def _select_smallest(
    row: Floats, scratch: Floats, minima: Floats, places: Ints, size: int, lanes: int, k: int, out: Ints, at: int
) -> None:
    """Fill out[at : at + k] with the places of the k smallest values of a row without NaN.

    The row is dealt out to lanes. The k-th smallest of their minima is at least the row's k-th smallest value
    and seldom much more, so that a handful of candidates in k lanes is left to select among.
    """
    candidates, chosen = size, _TWO * size  # where they begin in places, behind the ranks
    count = _ZERO
    if lanes:
        for lane in range(lanes):
            minima[lane] = row[lane]
        for first in range(lanes, size, lanes):
            for lane in range(min(lanes, size - first)):
                value, smallest = row[first + lane], minima[lane]
                minima[lane] = value if value < smallest else smallest
        for lane in range(lanes):
            scratch[lane] = minima[lane]
        bound = _kth_smallest(scratch, places, lanes, k)
        num_chosen = _ZERO
        for lane in range(lanes):
            places[chosen + num_chosen] = lane
            num_chosen += Index(minima[lane] <= bound)
        for lane in range(num_chosen):
            for j in range(Index(places[chosen + lane]), size, lanes):
                places[candidates + count] = j
                count += Index(row[j] <= bound)
    else:
        count = size
        for j in range(size):
            places[candidates + j] = j
    for c in range(count):
        scratch[c] = row[Index(places[candidates + c])]
    bound = _kth_smallest(scratch, places, count, k)
    filled = at
    for c in range(count):  # fewer than k are smaller than the k-th: the next place to fill always exists
        j = Index(places[candidates + c])
        out[filled] = j
        filled += Index(row[j] < bound)
    for c in range(count):
        j = Index(places[candidates + c])
        if row[j] == bound:
            out[filled] = j
            filled += _ONE
            if filled == at + k:
                break


@compiled
def nearest(
    terms: Floats, matrix: Floats, by_products: bool, idx: Ints, size: int, k: int, first: int, start: int, stop: int
) -> None:
    """Fill idx (k for each point) with the k points nearest to the points first + start .. first + stop - 1.

    Distances are squares - 2 products, of terms (size,) and matrix, whose rows begin at point `first`; or sums of
    squared differences of coordinates, matrix (axes, size).
    """
    size, k, axes = Index(size), Index(k), Index(matrix.size) // Index(size)
    lanes = max(Index(64), (_THREE * k + Index(15)) // Index(16) * Index(16))
    lanes = lanes if _THREE * lanes <= size else _ZERO
    infinity = matrix.dtype.type(np.inf)
    row, scratch = np.empty(size, matrix.dtype), np.empty(size, matrix.dtype)
    minima, places = np.empty(lanes, matrix.dtype), np.empty(_THREE * size, np.int32)
    for i in range(Index(start), Index(stop)):
        if by_products:
            product = i * size
            for j in range(size):
                value = terms[j] - (matrix[product + j] + matrix[product + j])
                row[j] = value if value < infinity else infinity  # NaN too: every later comparison is sound
        else:
            row[:] = 0
            for axis in range(axes):
                coordinates, origin = axis * size, matrix[axis * size + Index(first) + i]
                for j in range(size):
                    difference = matrix[coordinates + j] - origin
                    value = row[j] + difference * difference
                    row[j] = value if value < infinity else infinity
        _select_smallest(row, scratch, minima, places, size, lanes, k, idx, (Index(first) + i) * k)
