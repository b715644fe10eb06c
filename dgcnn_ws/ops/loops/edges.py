"""Reductions over the edges of a graph, and their gradient, a tile of channels of a cloud at a time.

A tile of all the cloud's points is copied into a small array that the cache holds; there neighbours are gathered,
and there gradients are scattered. A tile belongs to one thread: no atomics, and the same sums on any number of them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import Index, compiled, inlined, read
from dgcnn_ws.ops.loops.rows import aligned, read_row, write_row
from dgcnn_ws.ops.loops.vectors import LANES, double, load, splat, store, where

Features = NDArray[Any]  # float32, float64, or the bits of bfloat16
Floats = NDArray[Any]  # float32 for bfloat16, else the features' type
Ints = NDArray[Any]
Doubles = NDArray[np.float64]

_ZERO, _ONE, _TWO = (Index(n) for n in range(3))
_L = Index(LANES)  # channels of a tile


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
    tiles, zero = (channels + _L - _ONE) // _L, splat(sign.dtype.type(0))
    tile, spare = aligned(num_points * _L, sign), np.zeros(_L, sign.dtype)  # the tile holds sign a
    step = max(_ONE, num_points // Index(16))
    samples = splat(sign.dtype.type(1) / sign.dtype.type((num_points + step - _ONE) // step))
    spare_64, slots, next_slot = np.empty(_L, np.float64), np.zeros(_L, np.int32), splat(np.int32(1))
    signed = centre = zero
    loaded = Index(start) // pieces + _ONE  # another one than the first unit's
    for unit in range(Index(start), Index(stop)):
        piece, part = unit % pieces, unit // pieces
        cloud, low = part // tiles, part % tiles * _L
        width, first_row = min(_L, channels - low), cloud * num_points
        first_a, row_of_ab = first_row * _TWO * channels + low, _TWO * channels
        if part != loaded:
            loaded = part
            signed, centre = read_row(sign, low, width, spare), zero
            for j in range(_ZERO, num_points, step):
                a = first_a + j * row_of_ab
                centre += read_row(ab, a, width, spare) + read_row(ab, a + channels, width, spare)
            centre *= samples
            for j in range(num_points):
                store(tile, j * _L, read_row(ab, first_a + j * row_of_ab, width, spare) * signed)
        long, long_square = double(zero), double(zero)
        for i in range(num_points * piece // pieces, num_points * (piece + _ONE) // pieces):
            row = first_row + i
            edge = row * k
            b = read_row(ab, row * row_of_ab + channels + low, width, spare)
            beta = (b - centre) * signed
            best = load(tile, Index(idx[edge]) * _L)
            y, slot, place = best + beta, next_slot, splat(np.int32(0))
            total, square = y, y * y
            for at in range(edge + _ONE, edge + k):
                value = load(tile, Index(idx[at]) * _L)
                y = value + beta
                total += y
                square += y * y
                higher = value > best
                best, place = where(higher, value, best), where(higher, slot, place)
                slot += next_slot
            long += double(total)
            long_square += double(square)
            out = row * channels + low
            write_row(extreme, out, width, spare, b + best * signed)
            write_row(arg, out, width, slots, place)
        out = (cloud * pieces + piece) * _TWO * channels + low
        write_row(sums, out, width, spare_64, long * double(signed))
        write_row(sums, out + channels, width, spare_64, long_square)
        if piece == _ZERO:
            write_row(shift, cloud * channels + low, width, spare, centre)


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


@inlined
def _sum_of_rows(tile: Floats, rows: Ints, first: int, last: int) -> Any:
    """Return the sum of the tile's rows that rows[first:last] names."""
    even = odd = splat(tile.dtype.type(0))
    pairs = first + (last - first) // _TWO * _TWO
    for at in range(first, pairs, _TWO):
        even += load(tile, Index(rows[at]) * _L)
        odd += load(tile, Index(rows[at + _ONE]) * _L)
    if pairs < last:
        even += load(tile, Index(rows[pairs]) * _L)
    return even + odd


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
    tiles, statistics, has_extreme = (channels + _L - _ONE) // _L, offsets.size > 0, g_extreme.size > 0
    a_tile, b_tile = aligned(num_points * _L, mean), aligned(num_points * _L, mean)
    gradient, spare = aligned(num_points * _L, mean), np.zeros(_L, mean.dtype)
    zero, row_of_ab = splat(mean.dtype.type(0)), _TWO * channels
    for unit in range(Index(start), Index(stop)):
        cloud, low = unit // tiles, unit % tiles * _L
        width, first_row, channel = min(_L, channels - low), cloud * num_points, cloud * channels + low
        first_a = first_row * row_of_ab + low
        rise, bend = read_row(slope, channel, width, spare), read_row(curve, channel, width, spare)
        if statistics:
            # About one of the points: what is far from zero would round the sums.
            origin = read_row(ab, first_a, width, spare)
            rest = read_row(mean, channel, width, spare) - origin
            for j in range(num_points):
                a = first_a + j * row_of_ab
                store(a_tile, j * _L, read_row(ab, a, width, spare) - origin)
                store(b_tile, j * _L, read_row(ab, a + channels, width, spare) - rest)
        for i in range(num_points):
            row, here = first_row + i, i * _L
            g_a = g_b = zero
            if statistics:
                offset, first_edge = cloud * (num_points + _ONE) + i, first_row * k
                first, last = Index(offsets[offset]), Index(offsets[offset + _ONE])
                number, total = (
                    splat(mean.dtype.type(last - first)),
                    _sum_of_rows(b_tile, sources, first_edge + first, first_edge + last),
                )
                g_a = number * rise + bend * (total + number * load(a_tile, here))
                number, total = splat(mean.dtype.type(k)), _sum_of_rows(a_tile, idx, row * k, row * k + k)
                g_b = number * rise + bend * (total + number * load(b_tile, here))
            store(gradient, here, g_a)
            if has_extreme:
                g_b += read_row(g_extreme, row * channels + low, width, spare)
            write_row(g_ab, row * row_of_ab + channels + low, width, spare, g_b)
        if has_extreme:
            for i in range(num_points):
                edge, out = (first_row + i) * k, (first_row + i) * channels + low
                for c in range(width):
                    j = Index(idx[edge + Index(arg[out + c])])
                    gradient[j * _L + c] += read(g_extreme, out + c)
        for j in range(num_points):
            write_row(g_ab, first_a + j * row_of_ab, width, spare, load(gradient, j * _L))
