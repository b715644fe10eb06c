"""Up to a vector of an array's numbers as one: the last channels of a row are seldom as many as a vector holds."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgcnn_ws.ops.loops import Index, compiled, inlined, read, write
from dgcnn_ws.ops.loops.vectors import LANES, load, store

Numbers = NDArray[Any]
_ZERO, _L = Index(0), Index(LANES)


@compiled
def aligned(size: int, like: Numbers) -> Numbers:
    """Return zeros of the type of `like` that begin with a cache line: a vector across two takes twice as long."""
    spare = Index(64 // like.itemsize)
    raw = np.zeros(Index(size) + spare, like.dtype)
    first = (Index(64) - Index(raw.ctypes.data) % Index(64)) // Index(like.itemsize)
    return raw[first : first + Index(size)]


@inlined
def read_row(values: Numbers, at: int, width: int, spare: Numbers) -> Any:
    """Return values[at : at + width], and beyond what lies in spare (a vector long)."""
    if width == _L:
        return load(values, at)
    for c in range(width):
        spare[c] = read(values, at + c)
    return load(spare, _ZERO)


@inlined
def write_row(values: Numbers, at: int, width: int, spare: Numbers, x: Any) -> None:
    """Put the first numbers of x into values[at : at + width]."""
    if width == _L:
        store(values, at, x)
    else:
        store(spare, _ZERO, x)
        for c in range(width):
            write(values, at + c, spare[c])
