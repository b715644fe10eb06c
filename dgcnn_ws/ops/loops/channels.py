"""What is alike for every point: an affine map with its activation, and moments over the points."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import compiled

Floats = NDArray[Any]  # float32 or float64, the same for all arguments of a call
Ints = NDArray[Any]


@compiled
def _tile(unit: int, tiles: int, channels: int) -> tuple[int, int, int]:
    """Return the cloud and the range of channels that a unit stands for."""
    cloud, tile = unit // tiles, unit % tiles
    return cloud, channels * tile // tiles, channels * (tile + 1) // tiles


@compiled
def affine_forward(x: Floats, scale: Floats, shift: Floats, slope: Any, out: Floats, start: int, stop: int) -> None:
    """Fill out (B, N, C) with leaky_relu(scale x + shift) in the rows start..stop-1 of B N."""
    num_points, channels = x.shape[1:]
    for row in range(start, stop):
        cloud, n = row // num_points, row % num_points
        source, target, factor, term = x[cloud, n], out[cloud, n], scale[cloud], shift[cloud]
        for c in range(channels):
            z = source[c] * factor[c] + term[c]
            target[c] = z if z > 0 else z * slope


@compiled
def affine_mean(
    x: Floats, scale: Floats, shift: Floats, slope: Any, out: Floats, tiles: int, start: int, stop: int
) -> None:
    """Fill out (B, C) with the mean of leaky_relu(scale x + shift) over N; a unit is a tile of channels."""
    num_points, channels = x.shape[1:]
    for unit in range(start, stop):
        cloud, low, high = _tile(unit, tiles, channels)
        factor, term = scale[cloud, low:high], shift[cloud, low:high]
        short, long = np.empty_like(factor), np.zeros(high - low, np.float64)
        for first in range(0, num_points, 32):
            short[:] = 0
            for n in range(first, min(first + 32, num_points)):
                source = x[cloud, n, low:high]
                for c in range(high - low):
                    z = source[c] * factor[c] + term[c]
                    short[c] += z if z > 0 else z * slope
            for c in range(high - low):
                long[c] += short[c]
        for c in range(high - low):
            out[cloud, low + c] = long[c] / num_points


@compiled
def affine_backward(
    g_out: Floats,
    x: Floats,
    scale: Floats,
    shift: Floats,
    slope: Any,
    g_x: Floats,
    g_scale: Floats,
    g_shift: Floats,
    tiles: int,
    start: int,
    stop: int,
) -> None:
    """Fill the gradients of leaky_relu(scale x + shift); g_out is (B, N, C), or (B, 1, C) for all points."""
    num_points, channels = x.shape[1:]
    step = 1 if g_out.shape[1] == num_points else 0
    for unit in range(start, stop):
        cloud, low, high = _tile(unit, tiles, channels)
        factor, term = scale[cloud, low:high], shift[cloud, low:high]
        short_1, short_2 = np.empty_like(factor), np.empty_like(factor)
        long_1, long_2 = np.zeros(high - low, np.float64), np.zeros(high - low, np.float64)
        for first in range(0, num_points, 32):
            short_1[:] = 0
            short_2[:] = 0
            for n in range(first, min(first + 32, num_points)):
                source, target = x[cloud, n, low:high], g_x[cloud, n, low:high]
                gradient = g_out[cloud, n * step, low:high]
                for c in range(high - low):
                    g = gradient[c]
                    g = g if source[c] * factor[c] + term[c] > 0 else g * slope
                    target[c] = g * factor[c]
                    short_1[c] += g * source[c]
                    short_2[c] += g
            for c in range(high - low):
                long_1[c] += short_1[c]
                long_2[c] += short_2[c]
        for c in range(high - low):
            g_scale[cloud, low + c] = long_1[c]
            g_shift[cloud, low + c] = long_2[c]


@compiled
def columns_forward(
    y: Floats,
    sign: Floats,
    extreme: Floats,
    arg: Ints,
    mean: Floats,
    var: Floats,
    shift: Floats,
    tiles: int,
    start: int,
    stop: int,
) -> None:
    """Fill extreme, arg, mean and var (B, C) over the points of y (B, N, C); a unit is a tile of channels."""
    num_points, channels = y.shape[1:]
    for unit in range(start, stop):
        cloud, low, high = _tile(unit, tiles, channels)
        centre, signed = shift[cloud, low:high], sign[low:high]
        best, where = signed * y[cloud, 0, low:high], np.zeros(high - low, np.int32)
        short_1, short_2 = np.empty_like(best), np.empty_like(best)
        long_1, long_2 = np.zeros(high - low, np.float64), np.zeros(high - low, np.float64)
        for first in range(0, num_points, 32):
            short_1[:] = 0
            short_2[:] = 0
            for n in range(first, min(first + 32, num_points)):
                values, point = y[cloud, n, low:high], np.int32(n)
                for c in range(high - low):
                    value, most, place = values[c] * signed[c], best[c], where[c]
                    where[c] = point if value > most else place
                    best[c] = value if value > most else most
                    value = values[c] - centre[c]
                    short_1[c] += value
                    short_2[c] += value * value
            for c in range(high - low):
                long_1[c] += short_1[c]
                long_2[c] += short_2[c]
        for c in range(high - low):
            extreme[cloud, low + c] = best[c] * signed[c]
            arg[cloud, low + c] = where[c]
            offset = long_1[c] / num_points
            mean[cloud, low + c] = centre[c] + offset
            var[cloud, low + c] = max(long_2[c] / num_points - offset * offset, 0.0)


@compiled
def columns_backward(
    y: Floats,
    arg: Ints,
    mean: Floats,
    g_extreme: Floats,
    slope: Floats,
    curve: Floats,
    g_y: Floats,
    tiles: int,
    start: int,
    stop: int,
) -> None:
    """Fill g_y (B, N, C) with slope + curve (y - mean), and g_extreme where the extreme was."""
    num_points, channels = y.shape[1:]
    for unit in range(start, stop):
        cloud, low, high = _tile(unit, tiles, channels)
        centre, g_1, g_2 = mean[cloud, low:high], slope[cloud, low:high], curve[cloud, low:high]
        for n in range(num_points):
            values, target = y[cloud, n, low:high], g_y[cloud, n, low:high]
            for c in range(high - low):
                target[c] = g_1[c] + g_2[c] * (values[c] - centre[c])
        for c in range(low, high):
            g_y[cloud, arg[cloud, c], c] += g_extreme[cloud, c]
