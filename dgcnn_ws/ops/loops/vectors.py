"""Vectors of thirty-two numbers as values in compiled loops, which LLVM keeps in registers.

A loop that updates sums in memory is vectorised only where LLVM can show that its arrays do not overlap, and then goes
back to memory for every sum. A `Vector` is a value like a number. On every processor the same code runs:
LLVM splits a vector into as many registers as it needs, two or more, which keeps the processor's units busy.

    x = load(values, i)       as many numbers from i on; of bfloat16 (uint16) as float32
    store(values, i, x)       the reverse, rounded to the array's type
    x + y, x - y, x * y       and x < y, x == y ..., which give a mask for `where`, `bits` and `count`
    splat(number)             the same in every place
    keys(x)                   integers in the order of the numbers, none of them NaN; `number_of(key, like)` goes back
"""

import operator
from typing import Any

from llvmlite import ir
from numba.core import config, types
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

FEATURES = cpu_target.target_context.codegen()._tm_features  # of the processor that loops are compiled for
LANES = 32


class Vector(types.Type):
    """As many numbers of a type as LANES says."""

    def __init__(self, dtype: Any) -> None:
        super().__init__(name=f"Vector({dtype})")
        self.dtype = dtype


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.dtype).get_value_type(), LANES))


class _Arithmetic(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
            return signature(args[0], *args)
        return None


class _Comparison(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
            return signature(Vector(types.boolean), *args)
        return None


def _calculates(operation: Any, of_floats: str, of_ints: str) -> None:
    def build(_: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, of_floats if isinstance(sig.args[0].dtype, types.Float) else of_ints)(*args)

    infer_global(operation)(_Arithmetic)
    lower_builtin(operation, Vector, Vector)(build)


def _compares(operation: Any, word: str) -> None:
    def build(_: Any, builder: Any, sig: Any, args: Any) -> Any:
        floats = isinstance(sig.args[0].dtype, types.Float)
        return (builder.fcmp_ordered if floats else builder.icmp_signed)(word, *args)

    infer_global(operation)(_Comparison)
    lower_builtin(operation, Vector, Vector)(build)


for _name in ("add", "sub", "mul"):
    _calculates(getattr(operator, _name), f"f{_name}", _name)
    _calculates(getattr(operator, f"i{_name}"), f"f{_name}", _name)
for _operation, _word in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.eq, "==")):
    _compares(_operation, _word)


def _many(number: Any, of: Any) -> Any:
    return ir.Constant(of, [number] * of.count)


def check(context: Any, builder: Any, array: Any, last: Any) -> None:
    """Build what raises IndexError where a subscript is beyond the array's end, if Numba checks subscripts at all."""
    if config.BOUNDSCHECK:  # type: ignore[attr-defined]
        size = builder.extract_value(array.shape, 0)
        with builder.if_then(builder.icmp_unsigned(">=", last, size)):
            context.call_conv.return_user_exc(builder, IndexError, ("a vector goes beyond the end of its array",))


def _memory(context: Any, builder: Any, sig: Any, args: Any) -> tuple[Any, Any, int]:
    """Return a pointer, the vector's type in memory, and the alignment that numbers there have."""
    of = context.get_data_type(sig.args[0].dtype)
    vector = ir.VectorType(of, LANES)
    array = context.make_array(sig.args[0])(context, builder, args[0])
    check(context, builder, array, builder.add(args[1], ir.Constant(args[1].type, LANES - 1)))
    place = builder.bitcast(builder.gep(array.data, [args[1]]), vector.as_pointer())
    return place, vector, context.get_abi_sizeof(of)


@intrinsic
def load(typing_context: Any, values: Any, i: Any) -> Any:
    """Return values[i : i + LANES]."""
    half = values.dtype == types.uint16

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place, vector, align = _memory(context, builder, sig, args)
        loaded = builder.load(place, align=align, typ=vector)
        if not half:
            return loaded
        wide = ir.VectorType(ir.IntType(32), LANES)
        shifted = builder.shl(builder.zext(loaded, wide), _many(16, wide))
        return builder.bitcast(shifted, ir.VectorType(ir.FloatType(), LANES))

    return signature(Vector(types.float32 if half else values.dtype), values, types.uint64), build


@intrinsic
def store(typing_context: Any, values: Any, i: Any, x: Any) -> Any:
    """Put x into values[i : i + LANES]: rounded to bfloat16 (of two as near to the even one), whole numbers cut."""
    half = values.dtype == types.uint16

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place, vector, align = _memory(context, builder, sig, args)
        number = args[2]
        if half:
            wide = ir.VectorType(ir.IntType(32), LANES)
            raw = builder.bitcast(number, wide)
            odd = builder.and_(builder.lshr(raw, _many(16, wide)), _many(1, wide))
            upper = builder.lshr(builder.add(raw, builder.add(odd, _many(0x7FFF, wide))), _many(16, wide))
            # Adding to a NaN's bits could make a number.
            number = builder.select(builder.fcmp_unordered("uno", number, number), _many(0x7FC0, wide), upper)
            number = builder.trunc(number, vector)
        elif number.type.element.width > vector.element.width if isinstance(vector.element, ir.IntType) else False:
            number = builder.trunc(number, vector)
        builder.store(number, place, align=align)
        return context.get_dummy_value()

    return signature(types.void, values, types.uint64, x), build


def _broadcast(builder: Any, number: Any, vector: Any) -> Any:
    undefined, places = ir.Constant(vector, ir.Undefined), ir.VectorType(ir.IntType(32), vector.count)
    one = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, _many(0, places))


@intrinsic
def splat(typing_context: Any, number: Any) -> Any:
    """Return a vector of one number."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(builder, args[0], ir.VectorType(args[0].type, LANES))

    return signature(Vector(number), number), build


@intrinsic
def double(typing_context: Any, x: Any) -> Any:
    """Return x in float64."""

    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        wide = ir.VectorType(ir.DoubleType(), LANES)
        return args[0] if args[0].type == wide else builder.fpext(args[0], wide)

    return signature(Vector(types.float64), x), build


@intrinsic
def where(typing_context: Any, mask: Any, x: Any, y: Any) -> Any:
    """Return x where the mask is true, y elsewhere."""
    return signature(x, mask, x, x), lambda _, builder, __, args: builder.select(*args)


@intrinsic
def bits(typing_context: Any, mask: Any) -> Any:
    """Return the mask as a number: the i-th bit for the i-th entry."""

    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.zext(builder.bitcast(args[0], ir.IntType(LANES)), ir.IntType(64))

    return signature(types.uint64, mask), build


@intrinsic
def count(typing_context: Any, mask: Any) -> Any:
    """Return how many entries of the mask are true."""

    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.zext(builder.ctpop(builder.bitcast(args[0], ir.IntType(LANES))), ir.IntType(64))

    return signature(types.uint64, mask), build


@intrinsic
def lowest_bit(typing_context: Any, number: Any) -> Any:
    """Return the place of the lowest bit of a number that is not 0."""

    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature(types.uint64, types.uint64), build


def _integer(floating: Any) -> Any:
    return types.int64 if floating == types.float64 else types.int32


def _turned(builder: Any, raw: Any, width: int, many: Any) -> Any:
    """Return a float's bits in the order of the numbers, or such an integer's as the float's bits."""
    sign = builder.ashr(raw, many(width - 1))
    return builder.xor(raw, builder.and_(sign, many((1 << (width - 1)) - 1)))


@intrinsic
def keys(typing_context: Any, x: Any) -> Any:
    """Return signed integers that compare as the numbers of x do; -0 comes before 0."""
    of = _integer(x.dtype)

    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.IntType(of.bitwidth), LANES)
        return _turned(builder, builder.bitcast(args[0], vector), of.bitwidth, lambda number: _many(number, vector))

    return signature(Vector(of), x), build


@intrinsic
def number_of(typing_context: Any, key: Any, like: Any) -> Any:
    """Return the number whose key this is, in the type of `like`."""
    raw = ir.IntType(_integer(like).bitwidth)

    def build(context: Any, builder: Any, __: Any, args: Any) -> Any:
        key = builder.trunc(args[0], raw) if raw.width < 64 else args[0]
        turned = _turned(builder, key, raw.width, lambda number: ir.Constant(raw, number))
        return builder.bitcast(turned, context.get_value_type(like))

    return signature(like, types.int64, like), build


def _reduction(name: str) -> Any:
    def reduced(typing_context: Any, x: Any) -> Any:
        def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
            of = args[0].type.element
            kind = ir.FunctionType(of, [args[0].type])
            full = f"llvm.vector.reduce.{name}.v{LANES}i{of.width}"
            function = builder.module.globals.get(full) or ir.Function(builder.module, kind, full)
            return builder.call(function, args)

        return signature(x.dtype, x), build

    reduced.__name__ = name
    return intrinsic(reduced)


smallest, largest = _reduction("smin"), _reduction("smax")  # of integers


@intrinsic
def halves(typing_context: Any, pairs: Any) -> Any:
    """Return the lower and the upper half of uint32 numbers, each half a bfloat16, as float32."""
    wide = Vector(types.float32)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        shifted = builder.shl(args[0], _many(16, args[0].type))
        upper = builder.and_(args[0], _many(0xFFFF0000, args[0].type))
        floats = ir.VectorType(ir.FloatType(), LANES)
        return context.make_tuple(
            builder, sig.return_type, [builder.bitcast(part, floats) for part in (shifted, upper)]
        )

    return signature(types.UniTuple(wide, 2), pairs), build
