"""One pass each over a block of edges (n, k, C), the rows `first` .. `first + n - 1` of all B N points."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import compiled

Floats = NDArray[Any]  # float32 or float64, the same for all arguments of a call
Ints = NDArray[Any]


@compiled
def activated_forward(
    ab: Floats, idx: Ints, scale: Floats, shift: Floats, slope: Any, z: Floats, first: int, start: int, stop: int
) -> None:
    """Fill z with leaky_relu(scale (a_j + b_i) + shift); a unit is a point."""
    num_points, k = idx.shape[1:]
    channels = scale.shape[1]
    for n in range(start, stop):
        cloud, i = (first + n) // num_points, (first + n) % num_points
        b, factor, term = ab[cloud, i, channels:], scale[cloud], shift[cloud]
        for slot in range(k):
            a, out = ab[cloud, idx[cloud, i, slot], :channels], z[n, slot]
            for c in range(channels):
                value = (a[c] + b[c]) * factor[c] + term[c]
                out[c] = value if value > 0 else value * slope


@compiled
def activated_backward(
    ab: Floats,
    idx: Ints,
    scale: Floats,
    shift: Floats,
    slope: Any,
    g: Floats,
    g_b: Floats,
    sums: Floats,
    first: int,
    start: int,
    stop: int,
) -> None:
    """Turn g from the gradient of z into that of a_j + b_i; fill its sum over the edges of a point, g_b (n, C).

    sums (n, 2, C) receives the parts that a point's edges have in the gradients of scale and shift.
    """
    num_points, k = idx.shape[1:]
    channels = scale.shape[1]
    for n in range(start, stop):
        cloud, i = (first + n) // num_points, (first + n) % num_points
        b, factor, term = ab[cloud, i, channels:], scale[cloud], shift[cloud]
        total, g_scale, g_shift = g_b[n], sums[n, 0], sums[n, 1]
        total[:] = 0
        g_scale[:] = 0
        g_shift[:] = 0
        for slot in range(k):
            a, gradient = ab[cloud, idx[cloud, i, slot], :channels], g[n, slot]
            for c in range(channels):
                y, value = a[c] + b[c], gradient[c]
                value = value if y * factor[c] + term[c] > 0 else value * slope
                g_scale[c] += value * y
                g_shift[c] += value
                value *= factor[c]
                total[c] += value
                gradient[c] = value


@compiled
def scatter(g: Floats, idx: Ints, g_ab: Floats, first: int, tiles: int, start: int, stop: int) -> None:
    """Add g to the rows of g_ab[..., :C] that the edges start from; a unit is a tile of channels, so none collide."""
    num_points, k = idx.shape[1:]
    channels = g.shape[2]
    for unit in range(start, stop):
        low, high = channels * unit // tiles, channels * (unit + 1) // tiles
        for n in range(g.shape[0]):
            cloud, i = (first + n) // num_points, (first + n) % num_points
            for slot in range(k):
                source, target = g[n, slot, low:high], g_ab[cloud, idx[cloud, i, slot], low:high]
                for c in range(high - low):
                    target[c] += source[c]


@compiled
def extremes_forward(
    y: Floats,
    num_points: int,
    sign: Floats,
    centre: Floats,
    extreme: Floats,
    arg: Ints,
    sums: Floats,
    first: int,
    start: int,
    stop: int,
) -> None:
    """Fill extreme, its slot arg (n, C), and sums (n, 2, C) of y - centre and its square, over a point's edges."""
    k, channels = y.shape[1:]
    where = np.empty(channels, np.int32)
    for n in range(start, stop):
        middle, best, slots = centre[(first + n) // num_points], extreme[n], arg[n]
        total, square = sums[n, 0], sums[n, 1]
        values = y[n, 0]
        for c in range(channels):
            value = values[c] - middle[c]
            total[c], square[c] = value, value * value
            best[c], where[c] = values[c] * sign[c], 0
        for slot in range(1, k):
            values, here = y[n, slot], np.int32(slot)
            for c in range(channels):
                value = values[c] - middle[c]
                total[c] += value
                square[c] += value * value
                value, high, place = values[c] * sign[c], best[c], where[c]
                where[c] = here if value > high else place
                best[c] = value if value > high else high
        for c in range(channels):
            best[c] *= sign[c]
            slots[c] = where[c]


@compiled
def extremes_backward(
    y: Floats,
    num_points: int,
    mean: Floats,
    slope: Floats,
    curve: Floats,
    arg: Ints,
    g_extreme: Floats,
    first: int,
    start: int,
    stop: int,
) -> None:
    """Turn y into its gradient: slope + curve (y - mean), and g_extreme (n, C) added at slot arg (n, C)."""
    k, channels = y.shape[1:]
    zero = mean.dtype.type(0)
    for n in range(start, stop):
        cloud = (first + n) // num_points
        middle, g_1, g_2, slots, gradient = mean[cloud], slope[cloud], curve[cloud], arg[n], g_extreme[n]
        for slot in range(k):
            values = y[n, slot]
            for c in range(channels):
                chosen = gradient[c] if slots[c] == slot else zero
                values[c] = g_1[c] + g_2[c] * (values[c] - middle[c]) + chosen
