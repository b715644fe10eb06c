"""What is alike for every point: an affine map with its activation, and moments over the points.

Features (B, N, C) come flat, with N and C beside them; a unit is a row, or a tile of the channels of a cloud.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import Index, compiled, read, write
from dgcnn_ws.ops.loops.rows import read_row, write_row
from dgcnn_ws.ops.loops.vectors import LANES, double, load, splat, store, where

Features = NDArray[Any]  # float32, float64, or the bits of bfloat16
Floats = NDArray[Any]  # float32 for bfloat16, else the features' type
Ints = NDArray[Any]

# A number is compared with a zero of its own type: with a plain 0 it would be as float64, half as many at a time.
_ZERO, _ONE, _TWO, _THREE, _FOUR = (Index(n) for n in range(5))
_SHORT = Index(32)  # points that are added up narrowly
# Points of which one strip of channels after the other is done, a vector wide: its sums stay in registers. More of them
# would be too many places in memory to be fetched ahead.
_L, _ROWS = Index(LANES), Index(8)


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
def _strips(channels: Any, tile: Any, tiles: Any) -> Any:
    """Return the first channel of a tile, and the channels that its strips hold, some beyond the last one."""
    strips = (channels + _L - _ONE) // _L
    first = strips * tile // tiles
    return first * _L, (strips * (tile + _ONE) // tiles - first) * _L


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
    samples = splat(sign.dtype.type(1) / sign.dtype.type((num_points + step - _ONE) // step))
    zero, next_point, spare = splat(sign.dtype.type(0)), splat(np.int32(1)), np.zeros(_L, sign.dtype)
    for unit in range(Index(start), Index(stop)):
        cloud = unit // tiles
        low, size = _strips(channels, unit % tiles, tiles)
        # The centre is the mean of some of the points, about which squares do not cancel.
        centres, highest, where_it_is = np.empty(size, sign.dtype), np.empty(size, sign.dtype), np.zeros(size, np.int32)
        long = np.zeros(_TWO * size, np.float64)
        for c in range(_ZERO, size, _L):
            width, first_row = min(_L, channels - low - c), cloud * num_points * channels + low + c
            centre = zero
            for n in range(_ZERO, num_points, step):
                centre += read_row(y, first_row + n * channels, width, spare) * samples
            store(centres, c, centre)
            store(highest, c, read_row(y, first_row, width, spare) * read_row(sign, low + c, width, spare))
        for first in range(_ZERO, num_points, _ROWS):
            for c in range(_ZERO, size, _L):
                width = min(_L, channels - low - c)
                signed = read_row(sign, low + c, width, spare)
                centre, best, place = load(centres, c), load(highest, c), load(where_it_is, c)
                total, square, point = zero, zero, splat(np.int32(first))
                for n in range(first, min(first + _ROWS, num_points)):
                    number = read_row(y, (cloud * num_points + n) * channels + low + c, width, spare)
                    value = number * signed
                    higher = value > best
                    best, place = where(higher, value, best), where(higher, point, place)
                    number -= centre
                    total += number
                    square += number * number
                    point += next_point
                store(highest, c, best)
                store(where_it_is, c, place)
                store(long, c, load(long, c) + double(total))
                store(long, size + c, load(long, size + c) + double(square))
        for c in range(_ZERO, size, _L):
            width, out = min(_L, channels - low - c), cloud * channels + low + c
            signed = read_row(sign, low + c, width, spare)
            write_row(extreme, out, width, spare, load(highest, c) * signed)
        for c in range(min(size, channels - low)):
            out, offset = cloud * channels + low + c, long[c] / num_points
            arg[out] = where_it_is[c]
            mean[out] = centres[c] + offset
            var[out] = max(long[size + c] / num_points - offset * offset, 0.0)


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
    arg is int32.
    """
    num_points, channels, row, stop = Index(num_points), Index(channels), Index(start), Index(stop)
    zero, next_point = splat(mean.dtype.type(0)), splat(np.int32(1))
    spare, points = np.zeros(_L, mean.dtype), np.zeros(_L, np.int32)
    while row < stop:
        cloud = row // num_points
        last = min(row + _ROWS, stop, (cloud + _ONE) * num_points)
        for c in range(_ZERO, channels, _L):
            width, small, wide = min(_L, channels - c), cloud * channels + c, cloud * _FOUR * channels + c
            rise, bend = read_row(slope, small, width, spare), read_row(curve, small, width, spare)
            middle, of_extreme = read_row(mean, small, width, spare), read_row(g_extreme, small, width, spare)
            scale, shift = (
                read_row(activated, wide, width, spare),
                read_row(activated, wide + channels, width, spare),
            )
            right, left = (
                read_row(activated, wide + _TWO * channels, width, spare),
                read_row(activated, wide + _THREE * channels, width, spare),
            )
            place, point = read_row(arg, small, width, points), splat(np.int32(row - cloud * num_points))
            for here in range(row * channels + c, last * channels, channels):
                value = read_row(y, here, width, spare)
                g = rise + bend * (value - middle) + where(value * scale + shift > zero, right, left)
                g += where(point == place, of_extreme, zero)
                write_row(g_y, here, width, spare, g)
                point += next_point
        row = last
