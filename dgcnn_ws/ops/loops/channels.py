"""What is alike for every point: an affine map with its activation, and moments over the points.

Features (B, N, C) come flat, with N and C beside them; a unit is a row, or a tile of the channels of a cloud.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import Index, compiled, read, write

Features = NDArray[Any]  # float32, float64, or the bits of bfloat16
Floats = NDArray[Any]  # float32 for bfloat16, else the features' type
Ints = NDArray[Any]

# A number is compared with a zero of its own type: with a plain 0 it would be as float64, half as many at a time.
_ZERO, _ONE, _TWO, _SHORT = Index(0), Index(1), Index(2), Index(32)  # of the last: points that are added up narrowly


@compiled
def affine_forward(
    x: Features,
    scale: Floats,
    shift: Floats,
    slope: Any,
    out: Features,
    num_points: int,
    channels: int,
    start: int,
    stop: int,
) -> None:
    """Fill out with leaky_relu(scale x + shift) in the rows start..stop-1 of B N."""
    num_points, channels, zero = Index(num_points), Index(channels), scale.dtype.type(0)
    for row in range(Index(start), Index(stop)):
        here, factors = row * channels, row // num_points * channels
        for c in range(channels):
            z = read(x, here + c) * scale[factors + c] + shift[factors + c]
            z = z if z > zero else z * slope
            write(out, here + c, z)


@compiled
def affine_mean(
    x: Features,
    scale: Floats,
    shift: Floats,
    slope: Any,
    means: Floats,
    num_points: int,
    channels: int,
    tiles: int,
    start: int,
    stop: int,
) -> None:
    """Fill means (B, 3, C) over N of leaky_relu(z), of d x and of d; z = scale x + shift, d = 1 or the slope."""
    num_points, channels, tiles = Index(num_points), Index(channels), Index(tiles)
    zero, one = scale.dtype.type(0), scale.dtype.type(1)
    for unit in range(Index(start), Index(stop)):
        cloud, tile = unit // tiles, unit % tiles
        low = channels * tile // tiles
        width, factors = channels * (tile + _ONE) // tiles - low, cloud * channels + low
        short, long = np.empty(Index(3) * width, scale.dtype), np.zeros(Index(3) * width, np.float64)
        for first in range(_ZERO, num_points, _SHORT):
            short[:] = 0
            for n in range(first, min(first + _SHORT, num_points)):
                here = (cloud * num_points + n) * channels + low
                for c in range(width):
                    value = read(x, here + c)
                    z = value * scale[factors + c] + shift[factors + c]
                    d = one if z > zero else slope
                    short[c] += d * z
                    short[width + c] += d * value
                    short[_TWO * width + c] += d
            for c in range(Index(3) * width):
                long[c] += short[c]
        for part in range(Index(3)):
            for c in range(width):
                means[(cloud * Index(3) + part) * channels + low + c] = long[part * width + c] / num_points


@compiled
def affine_backward(
    g_out: Features,
    x: Features,
    scale: Floats,
    shift: Floats,
    slope: Any,
    g_x: Features,
    g_scale: Floats,
    g_shift: Floats,
    num_points: int,
    channels: int,
    tiles: int,
    start: int,
    stop: int,
) -> None:
    """Fill the gradients of leaky_relu(scale x + shift); a unit is a tile of channels."""
    num_points, channels, tiles = Index(num_points), Index(channels), Index(tiles)
    zero = scale.dtype.type(0)
    for unit in range(Index(start), Index(stop)):
        cloud, tile = unit // tiles, unit % tiles
        low = channels * tile // tiles
        width, factors = channels * (tile + _ONE) // tiles - low, cloud * channels + low
        short_1, short_2 = np.empty(width, scale.dtype), np.empty(width, scale.dtype)
        long = np.zeros(_TWO * width, np.float64)
        for first in range(_ZERO, num_points, _SHORT):
            short_1[:] = 0
            short_2[:] = 0
            for n in range(first, min(first + _SHORT, num_points)):
                here = (cloud * num_points + n) * channels + low
                for c in range(width):
                    value, factor, g = read(x, here + c), scale[factors + c], read(g_out, here + c)
                    g = g if value * factor + shift[factors + c] > zero else g * slope
                    write(g_x, here + c, g * factor)
                    short_1[c] += g * value
                    short_2[c] += g
            for c in range(width):
                long[c] += short_1[c]
                long[width + c] += short_2[c]
        for c in range(width):
            g_scale[factors + c], g_shift[factors + c] = long[c], long[width + c]


@compiled
def columns_forward(
    y: Features,
    sign: Floats,
    extreme: Features,
    arg: Ints,
    mean: Floats,
    var: Floats,
    num_points: int,
    channels: int,
    tiles: int,
    start: int,
    stop: int,
) -> None:
    """Fill extreme, arg, mean and var (B, C) over the points of y; a unit is a tile of channels."""
    num_points, channels, tiles = Index(num_points), Index(channels), Index(tiles)
    step = max(_ONE, num_points // Index(16))
    samples = sign.dtype.type((num_points + step - _ONE) // step)
    for unit in range(Index(start), Index(stop)):
        cloud, tile = unit // tiles, unit % tiles
        low = channels * tile // tiles
        width, out = channels * (tile + _ONE) // tiles - low, cloud * channels + low
        # One array: the centre, the mean of some of the points, about which squares do not cancel; best, and sums.
        best, total, square = width, _TWO * width, Index(3) * width
        state, where = np.zeros(Index(4) * width, sign.dtype), np.zeros(width, np.int32)
        long = np.zeros(_TWO * width, np.float64)
        for n in range(_ZERO, num_points, step):
            here = (cloud * num_points + n) * channels + low
            for c in range(width):
                state[c] += read(y, here + c) / samples
        for c in range(width):
            state[best + c] = sign[low + c] * read(y, cloud * num_points * channels + low + c)
        for first in range(_ZERO, num_points, _SHORT):
            for c in range(_TWO * width):
                state[total + c] = 0
            for n in range(first, min(first + _SHORT, num_points)):
                here, point = (cloud * num_points + n) * channels + low, np.int32(n)
                for c in range(width):
                    number = read(y, here + c)
                    value, most, place = number * sign[low + c], state[best + c], where[c]
                    where[c] = point if value > most else place
                    state[best + c] = value if value > most else most
                    number -= state[c]
                    state[total + c] += number
                    state[square + c] += number * number
            for c in range(_TWO * width):
                long[c] += state[total + c]
        for c in range(width):
            write(extreme, out + c, state[best + c] * sign[low + c])
            arg[out + c] = where[c]
            offset = long[c] / num_points
            mean[out + c] = state[c] + offset
            var[out + c] = max(long[width + c] / num_points - offset * offset, 0.0)


@compiled
def columns_backward(
    y: Features,
    arg: Ints,
    mean: Floats,
    g_extreme: Floats,
    slope: Floats,
    curve: Floats,
    activated: Floats,
    g_y: Features,
    num_points: int,
    channels: int,
    start: int,
    stop: int,
) -> None:
    """Fill g_y with slope + curve (y - mean), and g_extreme where the extreme was; a unit is a row of B N.

    activated (B, 4, C) holds scale, shift, right and left: right is added where scale y + shift > 0, left elsewhere.
    """
    num_points, channels, zero = Index(num_points), Index(channels), mean.dtype.type(0)
    for row in range(Index(start), Index(stop)):
        cloud, here, point = row // num_points, row * channels, np.int64(row % num_points)
        small, scale = cloud * channels, cloud * Index(4) * channels
        shift, right, left = scale + channels, scale + _TWO * channels, scale + Index(3) * channels
        for c in range(channels):
            value = read(y, here + c)
            g = slope[small + c] + curve[small + c] * (value - mean[small + c])
            positive = activated[scale + c] * value + activated[shift + c] > zero
            g += activated[right + c] if positive else activated[left + c]
            write(g_y, here + c, g + g_extreme[small + c] if arg[small + c] == point else g)
