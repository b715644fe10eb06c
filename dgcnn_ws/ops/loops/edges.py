"""Reductions over the edges of a graph, and the gradient, which is gathered along the reversed edges."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import compiled

Floats = NDArray[Any]  # float32 or float64, the same for all arguments of a call
Ints = NDArray[Any]
Doubles = NDArray[np.float64]


@compiled
def edge_forward(
    ab: Floats,
    idx: Ints,
    sign: Floats,
    extreme: Floats,
    arg: Ints,
    sums: Doubles,
    shift: Floats,
    start: int,
    stop: int,
) -> None:
    """Fill extreme, arg, and sums (B, pieces, 2, C) of y - shift and its square; a unit is a piece."""
    num_points, k = idx.shape[1:]
    channels, pieces = sign.shape[0], sums.shape[1]
    best, beta = np.empty_like(sign), np.empty_like(sign)
    total, square = np.empty_like(sign), np.empty_like(sign)
    slot_of_best = np.empty(channels, np.int32)
    for unit in range(start, stop):
        cloud, piece = unit // pieces, unit % pieces
        centre = shift[cloud]
        sum_1, sum_2 = sums[cloud, piece, 0], sums[cloud, piece, 1]
        sum_1[:] = 0
        sum_2[:] = 0
        for i in range(num_points * piece // pieces, num_points * (piece + 1) // pieces):
            b, neighbours = ab[cloud, i, channels:], idx[cloud, i]
            first = ab[cloud, neighbours[0], :channels]
            for c in range(channels):
                beta[c] = b[c] - centre[c]
                y = first[c] + beta[c]
                best[c] = first[c] * sign[c]
                total[c] = y
                square[c] = y * y
                slot_of_best[c] = 0
            unrolled = 1 + (k - 1) // 4 * 4
            for slot in range(1, unrolled, 4):
                a0, a1 = ab[cloud, neighbours[slot], :channels], ab[cloud, neighbours[slot + 1], :channels]
                a2, a3 = (
                    ab[cloud, neighbours[slot + 2], :channels],
                    ab[cloud, neighbours[slot + 3], :channels],
                )
                s0, s1, s2, s3 = np.int32(slot), np.int32(slot + 1), np.int32(slot + 2), np.int32(slot + 3)
                for c in range(channels):
                    signed, high, where, base = sign[c], best[c], slot_of_best[c], beta[c]
                    v0, v1, v2, v3 = a0[c], a1[c], a2[c], a3[c]
                    y0, y1, y2, y3 = v0 + base, v1 + base, v2 + base, v3 + base
                    total[c] += (y0 + y1) + (y2 + y3)
                    square[c] += (y0 * y0 + y1 * y1) + (y2 * y2 + y3 * y3)
                    v0, v1, v2, v3 = v0 * signed, v1 * signed, v2 * signed, v3 * signed
                    where = s0 if v0 > high else where
                    high = v0 if v0 > high else high
                    where = s1 if v1 > high else where
                    high = v1 if v1 > high else high
                    where = s2 if v2 > high else where
                    high = v2 if v2 > high else high
                    where = s3 if v3 > high else where
                    high = v3 if v3 > high else high
                    best[c], slot_of_best[c] = high, where
            for slot in range(unrolled, k):
                a0, s0 = ab[cloud, neighbours[slot], :channels], np.int32(slot)
                for c in range(channels):
                    y = a0[c] + beta[c]
                    total[c] += y
                    square[c] += y * y
                    value, high, where = a0[c] * sign[c], best[c], slot_of_best[c]
                    slot_of_best[c] = s0 if value > high else where
                    best[c] = value if value > high else high
            out, slots = extreme[cloud, i], arg[cloud, i]
            for c in range(channels):
                out[c] = b[c] + best[c] * sign[c]
                slots[c] = slot_of_best[c]
                sum_1[c] += total[c]
                sum_2[c] += square[c]


@compiled
def transpose_graph(idx: Ints, offsets: Ints, edges: Ints, start: int, stop: int) -> None:
    """List the edges i k + slot that reach each j, ascending: edges[offsets[j] : offsets[j + 1]]."""
    num_points, k = idx.shape[1:]
    for cloud in range(start, stop):
        targets, offset, edge_list = idx[cloud].reshape(-1), offsets[cloud], edges[cloud]
        offset[:] = 0
        for e in range(num_points * k):
            offset[targets[e] + 1] += 1
        for j in range(num_points):
            offset[j + 1] += offset[j]
        for e in range(num_points * k):
            j = targets[e]
            edge_list[offset[j]] = e
            offset[j] += 1
        for j in range(num_points, 0, -1):  # each offset has moved on to the next one's place
            offset[j] = offset[j - 1]
        offset[0] = 0


@compiled
def edge_backward(
    ab: Floats,
    idx: Ints,
    offsets: Ints,
    edges: Ints,
    arg: Ints,
    mean: Floats,
    g_extreme: Floats,
    slope: Floats,
    curve: Floats,
    statistics: bool,
    g_ab: Floats,
    start: int,
    stop: int,
) -> None:
    """Gather the gradient of ab for the rows start..stop-1 of B N; t_ij = slope + curve (a_j + b_i - mean).

    g_b_i sums t over the edges that leave i, and adds g_extreme_i; g_a_j sums t over the edges that reach j,
    and those g_extreme_i that chose j.
    """
    num_points, k = idx.shape[1:]
    channels = mean.shape[1]
    total, base = np.empty_like(mean[0]), np.empty_like(mean[0])
    zero = mean.dtype.type(0)
    for row in range(start, stop):
        cloud, j = row // num_points, row % num_points
        a, b = ab[cloud, j, :channels], ab[cloud, j, channels:]
        g_a, g_b = g_ab[cloud, j, :channels], g_ab[cloud, j, channels:]
        features, gradients, slots = ab[cloud], g_extreme[cloud], arg[cloud]
        incoming = edges[cloud, offsets[cloud, j] : offsets[cloud, j + 1]]
        centre, g_1, g_2 = mean[cloud], slope[cloud], curve[cloud]
        g_b[:] = gradients[j]
        g_a[:] = zero
        if statistics:
            for c in range(channels):
                base[c] = b[c] - centre[c]
                total[c] = zero
            for slot in range(0, k - 1, 2):
                a0, a1 = (
                    features[idx[cloud, j, slot], :channels],
                    features[idx[cloud, j, slot + 1], :channels],
                )
                for c in range(channels):
                    total[c] += (a0[c] + base[c]) + (a1[c] + base[c])
            if k % 2:
                a0 = features[idx[cloud, j, k - 1], :channels]
                for c in range(channels):
                    total[c] += a0[c] + base[c]
            degree = mean.dtype.type(k)
            for c in range(channels):
                g_b[c] += degree * g_1[c] + g_2[c] * total[c]
                base[c] = a[c] - centre[c]
                total[c] = zero
            for e in range(incoming.shape[0]):
                i, slot = incoming[e] // k, incoming[e] % k
                b0, gradient, where = features[i, channels:], gradients[i], slots[i]
                for c in range(channels):
                    total[c] += b0[c] + base[c]
                    g_a[c] += gradient[c] if where[c] == slot else zero
            degree = mean.dtype.type(incoming.shape[0])
            for c in range(channels):
                g_a[c] += degree * g_1[c] + g_2[c] * total[c]
        else:
            for e in range(incoming.shape[0]):
                i, slot = incoming[e] // k, incoming[e] % k
                gradient, where = gradients[i], slots[i]
                for c in range(channels):
                    g_a[c] += gradient[c] if where[c] == slot else zero
