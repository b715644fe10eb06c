"""The loops behind `cpu`, compiled by Numba: each does the units start..stop-1 that one thread was given.

They release the GIL and write only what belongs to their units, so the result does not depend on timing.
Inner loops run over contiguous slices without branches, so that LLVM vectorises them (a subscript that is a
sum keeps it from that); taking several rows at a time spares loads and stores of running sums. Sums of a few
numbers are kept in the type of the features, long ones in float64.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numba


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop at its first call, and keep the code on disk where some folder can be written."""
    # Of fast mathematics only the fused multiply-add: NaN keeps its meaning, and sums their order.
    function = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})(loop)
    with suppress(RuntimeError):  # no folder to keep compiled code in
        function.enable_caching()
    return function
