"""Nearest neighbours: the k smallest of each row of distances."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import Index, compiled
from dgcnn_ws.ops.loops.distances import BLOCK, TILE, fill_differences, fill_products
from dgcnn_ws.ops.loops.vectors import (
    LANES,
    bits,
    count,
    keys,
    largest,
    load,
    lowest_bit,
    number_of,
    smallest,
    splat,
    store,
    where,
)

Floats = NDArray[Any]  # float32 or float64, the same for all arguments of a call
Packed = NDArray[Any]  # the same, or uint32
Ints = NDArray[Any]

_ZERO, _ONE, _TWO, _THREE = (Index(n) for n in range(4))
_L, _T, _B = Index(LANES), Index(TILE), Index(BLOCK)


@compiled
def _bound(values: Floats, size: int, k: int, spare: int) -> Any:
    """Return a number that k of values[:size] or more do not exceed, and at most k + spare but for equal ones.

    The values, none of them NaN, go on to the next multiple of a vector. Their bits, read as integers, are bisected.
    """
    low = keys(load(values, _ZERO))
    high = low
    for c in range(_L, size, _L):
        key = keys(load(values, c))
        low, high = where(key < low, key, low), where(key > high, key, high)
    first, last, like = np.int64(smallest(low)), np.int64(largest(high)), values[0]
    while first < last:
        middle = (first >> 1) + (last >> 1) + (first & last & 1)
        limit, found = splat(number_of(middle, like)), _ZERO
        for c in range(_ZERO, size, _L):
            found += count(load(values, c) <= limit)
        if found < k:
            first = middle + 1
        else:
            last = middle
            if found <= k + spare:
                break
    return number_of(last, like)


@compiled
def _select_smallest(
    rows: Floats,
    row: int,
    size: int,
    candidates: Floats,
    minima: Floats,
    places: Ints,
    lanes: int,
    k: int,
    out: Ints,
    at: int,
) -> None:
    """Fill out[at : at + k] with the places of the k smallest of rows[row : row + size], of equal ones the first.

    None is NaN. The row is dealt out to lanes. The k-th smallest of their minima is at least the row's k-th smallest
    value and seldom much more, so that a handful of candidates is left to select among.
    """
    infinity = rows.dtype.type(np.inf)
    bound = infinity
    if lanes:
        for lane in range(_ZERO, lanes, _L):
            least = load(rows, row + lane)
            for first in range(lane + lanes, size, lanes):
                values = load(rows, row + first)
                least = where(values < least, values, least)
            store(minima, lane, least)
        bound = _bound(minima, lanes, k, k >> _TWO)
    limit, found = splat(bound), _ZERO
    for first in range(_ZERO, size, _T):
        left = _ZERO
        for part in range(_ZERO, _T, _L):
            left |= bits(load(rows, row + first + part) <= limit) << part
        while left:
            j = first + lowest_bit(left)
            left &= left - _ONE
            places[found], candidates[found] = j, rows[row + j]
            found += _ONE
    for c in range(found, (found + _L - _ONE) // _L * _L):
        candidates[c] = infinity
    bound = _bound(candidates, found, k, _ZERO)
    limit, filled = splat(bound), at
    for c in range(_ZERO, found, _L):  # fewer than k are smaller, or just k
        left = bits(load(candidates, c) < limit)
        while left:
            out[filled] = places[c + lowest_bit(left)]
            left &= left - _ONE
            filled += _ONE
    c = _ZERO
    while filled < at + k:
        if candidates[c] == bound:
            out[filled] = places[c]
            filled += _ONE
        c += _ONE


@compiled
def nearest(
    packed: Packed, points: Floats, terms: Floats, idx: Ints, num_points: int, k: int, start: int, stop: int
) -> None:
    """Fill idx (B, N, k) with the k points nearest to each of the clouds' points; a unit is a block of them.

    The clouds are packed (`distances`): their distances are taken by products, or, where that is empty, are points: by
    differences.
    """
    num_points, k = Index(num_points), Index(k)
    filled = (num_points + _T - _ONE) // _T * _T
    blocks, axes = (num_points + _B - _ONE) // _B, Index(points.size) // Index(terms.size)
    lanes = (_THREE * k + _T - _ONE) // _T * _T
    lanes = lanes if _THREE * lanes <= filled else _ZERO
    step = max(lanes, _T)
    stride = (filled + step - _ONE) // step * step
    rows = np.full(_B * stride, np.inf, terms.dtype)
    candidates, places = np.empty(stride, terms.dtype), np.empty(stride, np.int32)
    minima = np.empty(lanes, terms.dtype)
    for unit in range(Index(start), Index(stop)):
        cloud, first_row = unit // blocks, unit % blocks * _B
        if packed.size > 0:
            fill_products(packed, terms, rows, stride, cloud * filled, filled, first_row)
        else:
            fill_differences(points, rows, stride, cloud * filled, filled, first_row, axes)
        for r in range(min(_B, num_points - first_row)):
            out = (cloud * num_points + first_row + r) * k
            _select_smallest(rows, r * stride, stride, candidates, minima, places, lanes, k, idx, out)
