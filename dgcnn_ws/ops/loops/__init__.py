"""The loops behind `cpu`, compiled by Numba: each does the units start..stop-1 that one thread was given.

They release the GIL and write only what belongs to their units, so the result does not depend on timing.

Two things decide how fast they run and how long they take to compile. Arrays are flat and subscripts unsigned
(`Index`): Numba then neither slices nor wraps negative subscripts, and LLVM vectorises. Inner loops run over a
constant number of channels and keep what they update in one small array of their own, so that LLVM need not ask at
every entry whether rows overlap. Sums of a few numbers are kept in float32 (float64 for float64), long ones in float64.

Features may be bfloat16, which NumPy does not have: their bits come as uint16. `read` widens them, `write` rounds.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import event, types
from numba.extending import intrinsic, overload

Index = np.uint64  # of subscripts and their parts: one signed number among them would make a float of the sum


class _Notice(event.Listener):
    """Tells the log, once in a process, why nothing seems to happen."""

    def on_start(self, event_: event.Event) -> None:
        if event_.data["dispatcher"].py_func.__module__.startswith(__name__):
            logging.getLogger(__name__).info(
                "compiling kernels for this processor, once for this installation (about 10 s of processor time)"
            )
            event.unregister("numba:compile", self)

    def on_end(self, event_: event.Event) -> None:
        pass


event.register("numba:compile", _Notice())


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop at its first call, and keep the code on disk where some folder can be written."""
    # Of fast mathematics only the fused multiply-add: NaN keeps its meaning, and sums their order.
    function = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(loop)
    with suppress(RuntimeError):  # no folder to keep compiled code in
        function.enable_caching()
    return function


# A part of such loops, which becomes part of their code: what it is called with and returns stays in registers.
inlined = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"}, forceinline=True)


@intrinsic
def _float_of_bits(context: Any, bits: Any) -> Any:
    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.uint32), build


@intrinsic
def _bits_of_float(context: Any, number: Any) -> Any:
    def build(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(32))

    return types.uint32(types.float32), build


def read(values: Any, i: Any) -> Any:
    """Return values[i], of bfloat16 as the float32 whose upper half it is."""
    raise NotImplementedError("for compiled loops alone")


def write(values: Any, i: Any, number: Any) -> None:
    """Put a number into values[i], in bfloat16 the nearest one, of two the even."""
    raise NotImplementedError("for compiled loops alone")


@overload(read)
def _read(values: Any, i: Any) -> Any:
    def widened(values: Any, i: Any) -> Any:
        return _float_of_bits(np.uint32(values[i]) << np.uint32(16))

    def plain(values: Any, i: Any) -> Any:
        return values[i]

    return widened if values.dtype == types.uint16 else plain


@overload(write)
def _write(values: Any, i: Any, number: Any) -> Any:
    def rounded(values: Any, i: Any, number: Any) -> None:
        bits = _bits_of_float(np.float32(number))
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        upper = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
        values[i] = upper if number == number else np.uint16(0x7FC0)  # adding to a NaN's bits could make a number

    def plain(values: Any, i: Any, number: Any) -> None:
        values[i] = number

    return rounded if values.dtype == types.uint16 else plain
