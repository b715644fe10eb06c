"""Squared distances of a cloud's points from each other, a block of 4 x 64 in registers.

Points are packed: 64 of them side by side, then the same 64 in the next channel. Where the processor has AVX512-BF16,
bfloat16 lies there as two channels in a uint32: an instruction multiplies such pairs, exactly, and adds in float32.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import signature
from numba.extending import intrinsic
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import Index, compiled
from dgcnn_ws.ops.loops.vectors import FEATURES, LANES, _broadcast, _many, check, halves, load, splat, store, where

Floats = NDArray[Any]  # float32 or float64, the same for all arguments of a call
Packed = NDArray[Any]  # the same, or uint32
Bits = NDArray[np.uint16]

TILE = 64  # points side by side
PAIRS = "+avx512bf16" in FEATURES  # whether the processor multiplies pairs of bfloat16
_WIDTH, _SPAN = 16, 64 if "+avx512f" in FEATURES else 16  # numbers of a vector, and columns that fit into registers
ROWS, BLOCK = 4, 32  # points whose distances are taken at once, and one after the other
_ZERO, _ONE, _TWO = (Index(n) for n in range(3))
_L, _T, _R, _B = Index(LANES), Index(TILE), Index(ROWS), Index(BLOCK)


class _BFloat(ir.Type):  # llvmlite has none
    def _to_string(self) -> str:
        return "bfloat"


_BFLOAT = _BFloat()


def _multiply(builder: Any, x: Any, y: Any, total: Any) -> Any:
    """Build total + x y, of pairs by the processor's own instruction."""
    if isinstance(total.type.element, type(x.type.element)):
        return builder.fadd(total, builder.fmul(x, y))
    name, pairs = "llvm.x86.avx512bf16.dpbf16ps.512", ir.VectorType(_BFLOAT, 2 * _WIDTH)
    kind = ir.FunctionType(total.type, [total.type, pairs, pairs])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, [total, builder.bitcast(x, pairs), builder.bitcast(y, pairs)])


@intrinsic
def _block(
    typing_context: Any, packed: Any, columns: Any, rows: Any, steps: Any, terms: Any, term: Any, out: Any, at: Any,
    stride: Any,
) -> Any:  # fmt: skip
    """Fill out[at + r stride + c] with terms[term + c] - 2 (row r . column c), c < 64, r < 4.

    columns and rows are where the 64 and the 4 points begin in packed, steps how many numbers of each lie there.
    """
    index, pairs = types.uint64, packed.dtype == types.uint32

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = [context.make_array(sig.args[n])(context, builder, args[n]) for n in (0, 4, 6)]
        arrays = [array.data for array in whole]
        columns, rows, steps, term, at, stride = (args[n] for n in (1, 2, 3, 5, 7, 8))
        one, number = ir.IntType(64), ir.IntType(32) if pairs else context.get_value_type(packed.dtype)
        floating = context.get_value_type(out.dtype)
        vector, result = ir.VectorType(number, _WIDTH), ir.VectorType(floating, _WIDTH)
        width = context.get_abi_sizeof(floating)

        def moved(start: Any, distance: Any) -> Any:
            return builder.add(start, distance if isinstance(distance, ir.Value) else ir.Constant(one, distance))

        def vector_at(array: Any, i: Any, kind: Any) -> Any:
            return builder.bitcast(builder.gep(array, [i]), kind.as_pointer())

        deep = builder.mul(builder.sub(steps, ir.Constant(one, 1)), ir.Constant(one, TILE))
        below = builder.mul(stride, ir.Constant(one, ROWS - 1))
        last = moved(columns, deep), moved(rows, deep), term, moved(at, below)
        width_of = (TILE, ROWS, TILE, TILE)
        for array, start, length in zip((whole[0], *whole), last, width_of, strict=True):
            check(context, builder, array, moved(start, length - 1))
        for group in range(0, TILE, _SPAN):
            parts = range(group, group + _SPAN, _WIDTH)
            totals = [[cgutils.alloca_once(builder, result) for _ in parts] for _ in range(ROWS)]
            for row in totals:
                for total in row:
                    builder.store(_many(0, result), total)
            with cgutils.for_range(builder, steps, intp=one) as loop:
                here = builder.mul(loop.index, ir.Constant(one, TILE))
                places = (vector_at(arrays[0], moved(moved(columns, here), part), vector) for part in parts)
                column = [builder.load(place, align=width, typ=vector) for place in places]
                for r, row in enumerate(totals):
                    value = builder.load(builder.gep(arrays[0], [moved(moved(rows, here), r)]), align=width, typ=number)
                    broadcast = _broadcast(builder, value, vector)
                    for total, x in zip(row, column, strict=True):
                        builder.store(_multiply(builder, x, broadcast, builder.load(total)), total)
            infinity = _many(float("inf"), result)  # NaN too: every later comparison is sound
            for r, row in enumerate(totals):
                line = moved(at, builder.mul(stride, ir.Constant(one, r)))
                for part, total in zip(parts, row, strict=True):
                    square = builder.load(vector_at(arrays[1], moved(term, part), result), align=width, typ=result)
                    value = builder.fadd(square, builder.fmul(_many(-2, result), builder.load(total)))
                    value = builder.select(builder.fcmp_ordered("<", value, infinity), value, infinity)
                    builder.store(value, vector_at(arrays[2], moved(line, part), result), align=width)
        return context.get_dummy_value()

    return signature(types.void, packed, index, index, index, terms, index, out, index, index), build


@compiled
def pack(
    x: Floats,
    mean: Floats,
    beyond: Any,
    packed: Floats,
    terms: Floats,
    num_points: int,
    channels: int,
    start: int,
    stop: int,
) -> None:
    """Pack x (B, N, C) - mean (B, C), and fill terms (B, N') with the squares; a unit is a tile of points.

    N' are the points of full tiles. Those that do not exist have coordinates `beyond`, and an infinite term.
    """
    num_points, channels = Index(num_points), Index(channels)
    tiles = (num_points + _T - _ONE) // _T
    for tile in range(Index(start), Index(stop)):
        cloud, first = tile // tiles, tile % tiles * _T
        for lane in range(_T):
            row, exists = (cloud * num_points + first + lane) * channels, first + lane < num_points
            for c in range(channels):
                value = x[row + c] - mean[cloud * channels + c] if exists else beyond
                packed[(tile * channels + c) * _T + lane] = value
        for part in range(_ZERO, _T, _L):
            total = splat(x.dtype.type(0))
            for c in range(channels):
                values = load(packed, (tile * channels + c) * _T + part)
                total += values * values
            store(terms, tile * _T + part, total)
        for lane in range(min(_T, num_points - first), _T):
            terms[tile * _T + lane] = np.inf


@compiled
def pack_pairs(x: Bits, packed: Packed, terms: Floats, num_points: int, channels: int, start: int, stop: int) -> None:
    """The same of bfloat16, which needs no mean."""
    num_points, channels = Index(num_points), Index(channels)
    tiles, steps = (num_points + _T - _ONE) // _T, (channels + _ONE) // _TWO
    for tile in range(Index(start), Index(stop)):
        cloud, first = tile // tiles, tile % tiles * _T
        for lane in range(_T):
            row, exists = (cloud * num_points + first + lane) * channels, first + lane < num_points
            for c in range(_ZERO, channels, _TWO):
                pair = np.uint32(0)
                if exists:
                    pair = np.uint32(x[row + c])
                    if c + _ONE < channels:
                        pair |= np.uint32(x[row + c + _ONE]) << np.uint32(16)
                packed[(tile * steps + c // _TWO) * _T + lane] = pair
        for part in range(_ZERO, _T, _L):
            total = splat(np.float32(0))
            for c in range(steps):
                lower, upper = halves(load(packed, (tile * steps + c) * _T + part))
                total += lower * lower + upper * upper
            store(terms, tile * _T + part, total)
        for lane in range(min(_T, num_points - first), _T):
            terms[tile * _T + lane] = np.inf


@compiled
def fill_products(packed: Packed, terms: Floats, out: Floats, stride: int, first: int, points: int, row: int) -> None:
    """Fill out (BLOCK, stride) with |y|^2 - 2 x y: x the points row ... of a cloud, y its points, never NaN.

    The cloud's points, filled up to tiles, begin at `first` and are `points`.
    """
    steps = Index(packed.size) // Index(terms.size)
    rows = (first + row) // _T * _T * steps + row % _T
    for tile in range(first, first + points, _T):
        for r in range(_ZERO, _B, _R):
            _block(packed, tile * steps, rows + r, steps, terms, tile, out, r * stride + (tile - first), stride)


@compiled
def fill_differences(packed: Floats, out: Floats, stride: int, first: int, points: int, row: int, axes: int) -> None:
    """Fill out (BLOCK, stride) with the sums of squared differences, as exact as the coordinates, never NaN."""
    rows, infinity = (first + row) // _T * _T * axes + row % _T, splat(packed.dtype.type(np.inf))
    for tile in range(first, first + points, _T):
        for r in range(_B):
            for part in range(_ZERO, _T, _L):
                total = splat(packed.dtype.type(0))
                for axis in range(axes):
                    here = splat(packed[rows + axis * _T + r])
                    difference = load(packed, (tile * axes + axis * _T) + part) - here
                    total += difference * difference
                total = where(total < infinity, total, infinity)
                store(out, r * stride + (tile - first) + part, total)
