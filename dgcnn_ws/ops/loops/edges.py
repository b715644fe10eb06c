"""Reductions over the edges of a graph, and their gradient, a tile of channels of a cloud at a time.

A tile of all the cloud's points is copied into a small array that the cache holds; there neighbours are gathered,
and there gradients are scattered. A tile belongs to one thread: no atomics, and the same sums on any number of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import Index, compiled, read, write

Features = NDArray[Any]  # float32, float64, or the bits of bfloat16
Floats = NDArray[Any]  # float32 for bfloat16, else the features' type
Ints = NDArray[Any]
Doubles = NDArray[np.float64]

FORWARD, BACKWARD = 64, 32  # channels of a tile
_ZERO, _ONE, _TWO, _THREE, _FOUR = (Index(n) for n in range(5))
_F, _B = Index(FORWARD), Index(BACKWARD)


@compiled
def edge_forward(
    ab: Features,
    idx: Ints,
    sign: Floats,
    extreme: Features,
    arg: Ints,
    shift: Floats,
    sums: Doubles,
    num_points: int,
    k: int,
    pieces: int,
    start: int,
    stop: int,
) -> None:
    """Fill extreme, arg, shift (B, C), and sums (B, pieces, 2, C) of y - shift and its square.

    A unit is a piece of the points of a cloud, in a tile of channels: tiles within clouds, and pieces within tiles.
    shift is the mean a + b of some sixteen points: squares about it do not cancel.
    """
    num_points, k, pieces, channels = Index(num_points), Index(k), Index(pieces), Index(sign.shape[0])
    tiles = (channels + _F - _ONE) // _F
    tile = np.zeros(num_points * _F, sign.dtype)  # sign a
    # One array: best, total, square, beta = b - shift, sign, and shift. Beyond the last channel it stays zero.
    best, total, square, beta, signed, centre = _ZERO, _F, _TWO * _F, _THREE * _F, _FOUR * _F, Index(5) * _F
    state, where = np.zeros(Index(6) * _F, sign.dtype), np.zeros(_F, np.int32)
    step = max(_ONE, num_points // Index(16))
    samples = (num_points + step - _ONE) // step
    long = np.empty(_TWO * _F, np.float64)
    loaded = Index(start) // pieces + _ONE  # another one than the first unit's
    for unit in range(Index(start), Index(stop)):
        piece, part = unit % pieces, unit // pieces
        cloud, low = part // tiles, part % tiles * _F
        width, first_row = min(_F, channels - low), cloud * num_points
        if part != loaded:
            loaded = part
            for c in range(width):
                state[signed + c], state[centre + c] = sign[low + c], 0
            for j in range(_ZERO, num_points, step):
                a = (first_row + j) * _TWO * channels + low
                for c in range(width):
                    state[centre + c] += read(ab, a + c) + read(ab, a + channels + c)
            for c in range(width):
                state[centre + c] /= sign.dtype.type(samples)
            for j in range(num_points):
                a = (first_row + j) * _TWO * channels + low
                for c in range(width):
                    tile[j * _F + c] = read(ab, a + c) * state[signed + c]
        long[:] = 0
        for i in range(num_points * piece // pieces, num_points * (piece + _ONE) // pieces):
            row = first_row + i
            b, edge = row * _TWO * channels + channels + low, row * k
            for c in range(width):
                state[beta + c] = read(ab, b + c) - state[centre + c]
            a0 = Index(idx[edge]) * _F
            for c in range(_F):
                value = tile[a0 + c]
                y = value * state[signed + c] + state[beta + c]
                state[best + c], state[total + c], state[square + c], where[c] = value, y, y * y, 0
            unrolled = _ONE + (k - _ONE) // _FOUR * _FOUR
            for slot in range(_ONE, unrolled, _FOUR):
                a0, a1 = Index(idx[edge + slot]) * _F, Index(idx[edge + slot + _ONE]) * _F
                a2, a3 = Index(idx[edge + slot + _TWO]) * _F, Index(idx[edge + slot + _THREE]) * _F
                s0 = np.int32(slot)
                s1, s2, s3 = s0 + np.int32(1), s0 + np.int32(2), s0 + np.int32(3)
                for c in range(_F):
                    factor, base, high, place = state[signed + c], state[beta + c], state[best + c], where[c]
                    v0, v1, v2, v3 = tile[a0 + c], tile[a1 + c], tile[a2 + c], tile[a3 + c]
                    y0, y1, y2, y3 = v0 * factor + base, v1 * factor + base, v2 * factor + base, v3 * factor + base
                    state[total + c] += (y0 + y1) + (y2 + y3)
                    state[square + c] += (y0 * y0 + y1 * y1) + (y2 * y2 + y3 * y3)
                    place = s0 if v0 > high else place
                    high = v0 if v0 > high else high
                    place = s1 if v1 > high else place
                    high = v1 if v1 > high else high
                    place = s2 if v2 > high else place
                    high = v2 if v2 > high else high
                    place = s3 if v3 > high else place
                    high = v3 if v3 > high else high
                    state[best + c], where[c] = high, place
            for slot in range(unrolled, k):
                a0, s0 = Index(idx[edge + slot]) * _F, np.int32(slot)
                for c in range(_F):
                    value, high, place = tile[a0 + c], state[best + c], where[c]
                    y = value * state[signed + c] + state[beta + c]
                    state[total + c] += y
                    state[square + c] += y * y
                    where[c] = s0 if value > high else place
                    state[best + c] = value if value > high else high
            out = row * channels + low
            for c in range(width):
                write(extreme, out + c, read(ab, b + c) + state[best + c] * state[signed + c])
                arg[out + c] = where[c]
            for c in range(_TWO * _F):
                long[c] += state[total + c]  # the sums lie side by side, in both
        out = (cloud * pieces + piece) * _TWO * channels + low
        for c in range(width):
            sums[out + c], sums[out + channels + c] = long[c], long[_F + c]
            if piece == _ZERO:
                shift[cloud * channels + low + c] = state[centre + c]


@compiled
def transpose_graph(idx: Ints, offsets: Ints, sources: Ints, num_points: int, k: int, start: int, stop: int) -> None:
    """List the i whose edges reach each j, ascending: sources[offsets[j] : offsets[j + 1]]; a unit is a cloud."""
    num_points, k = Index(num_points), Index(k)
    for cloud in range(Index(start), Index(stop)):
        first_edge, offset = cloud * num_points * k, cloud * (num_points + _ONE)
        for j in range(num_points + _ONE):
            offsets[offset + j] = 0
        for edge in range(first_edge, first_edge + num_points * k):
            offsets[offset + Index(idx[edge]) + _ONE] += np.int32(1)
        for j in range(num_points):
            offsets[offset + j + _ONE] += offsets[offset + j]
        for i in range(num_points):
            for edge in range(first_edge + i * k, first_edge + (i + _ONE) * k):
                j = offset + Index(idx[edge])
                sources[first_edge + Index(offsets[j])] = i
                offsets[j] += np.int32(1)
        for j in range(num_points, _ZERO, -1):  # each offset has moved on to the next one's place
            offsets[offset + Index(j)] = offsets[offset + Index(j) - _ONE]
        offsets[offset] = 0


@compiled
def _add_rows(tile: Floats, rows: Ints, first: int, last: int, total: Floats) -> None:
    """Fill total with the sum of the tile's rows that rows[first:last] names."""
    for c in range(_B):
        total[c] = 0
    unrolled = first + (last - first) // _FOUR * _FOUR
    for at in range(first, unrolled, _FOUR):
        a0, a1 = Index(rows[at]) * _B, Index(rows[at + _ONE]) * _B
        a2, a3 = Index(rows[at + _TWO]) * _B, Index(rows[at + _THREE]) * _B
        for c in range(_B):
            total[c] += (tile[a0 + c] + tile[a1 + c]) + (tile[a2 + c] + tile[a3 + c])
    for at in range(unrolled, last):
        a0 = Index(rows[at]) * _B
        for c in range(_B):
            total[c] += tile[a0 + c]


@compiled
def edge_backward(
    ab: Features,
    idx: Ints,
    offsets: Ints,
    sources: Ints,
    arg: Ints,
    mean: Floats,
    g_extreme: Features,
    slope: Floats,
    curve: Floats,
    g_ab: Features,
    num_points: int,
    k: int,
    channels: int,
    start: int,
    stop: int,
) -> None:
    """Fill the gradient of ab (B, N, 2C); with t_ij = slope + curve (a_j + b_i - mean), of the edges i -> j,

        g_b_i = g_extreme_i + sum_j t_ij,    g_a_j = sum_i t_ij + those g_extreme_i that chose j

    A unit is a tile of channels of a cloud. Where g_extreme is empty it counts as zero, where offsets are t does.
    """
    num_points, k, channels = Index(num_points), Index(k), Index(channels)
    tiles, statistics, has_extreme = (channels + _B - _ONE) // _B, offsets.size > 0, g_extreme.size > 0
    a_tile, b_tile = np.zeros(num_points * _B, mean.dtype), np.zeros(num_points * _B, mean.dtype)
    gradient, total = np.zeros(num_points * _B, mean.dtype), np.zeros(_B, mean.dtype)
    for unit in range(Index(start), Index(stop)):
        cloud, low = unit // tiles, unit % tiles * _B
        width, first_row, channel = min(_B, channels - low), cloud * num_points, cloud * channels + low
        a_of_first = first_row * _TWO * channels + low
        if statistics:
            for j in range(num_points):
                a = (first_row + j) * _TWO * channels + low
                for c in range(width):  # about one of the points: what is far from zero would round the sums
                    origin = read(ab, a_of_first + c)
                    a_tile[j * _B + c] = read(ab, a + c) - origin
                    b_tile[j * _B + c] = read(ab, a + channels + c) - (mean[channel + c] - origin)
        for i in range(num_points):
            row, here = first_row + i, i * _B
            out, b = row * channels + low, row * _TWO * channels + channels + low
            for c in range(_B):
                total[c] = 0
            if statistics:
                offset, first_edge = cloud * (num_points + _ONE) + i, first_row * k
                first, last = Index(offsets[offset]), Index(offsets[offset + _ONE])
                _add_rows(b_tile, sources, first_edge + first, first_edge + last, total)
                count = mean.dtype.type(last - first)
                for c in range(width):
                    curved = curve[channel + c] * (total[c] + count * a_tile[here + c])
                    gradient[here + c] = count * slope[channel + c] + curved
                _add_rows(a_tile, idx, row * k, row * k + k, total)
                count = mean.dtype.type(k)
                for c in range(width):
                    curved = curve[channel + c] * (total[c] + count * b_tile[here + c])
                    total[c] = count * slope[channel + c] + curved
            else:
                for c in range(_B):
                    gradient[here + c] = 0
            for c in range(width):
                write(g_ab, b + c, total[c] + read(g_extreme, out + c) if has_extreme else total[c])
        if has_extreme:
            for i in range(num_points):
                edge, out = (first_row + i) * k, (first_row + i) * channels + low
                for c in range(width):
                    j = Index(idx[edge + Index(arg[out + c])])
                    gradient[j * _B + c] += read(g_extreme, out + c)
        for j in range(num_points):
            a = (first_row + j) * _TWO * channels + low
            for c in range(width):
                write(g_ab, a + c, gradient[j * _B + c])
