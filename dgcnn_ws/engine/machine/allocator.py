"""The C library's allocator, as large tensors on the CPU need it; set before torch is imported, so without it."""

import ctypes
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def libc(name: str) -> Callable[..., int] | None:
    """Return a function of the C library where it has one of that name: glibc's are on Linux only."""
    return getattr(ctypes.CDLL(None), name, None)


def keep_freed_memory() -> None:
    """Let the C library keep the memory of freed tensors for the next ones, in this process.

    It otherwise returns every large block to the system, and gets it back by a page fault for each 4 KB: a sixth of
    a training step on the CPU (docs/PERFORMANCE.md).
    """
    if (mallopt := libc("mallopt")) is not None:
        mallopt(M_MMAP_THRESHOLD, 2**30)
        mallopt(M_TRIM_THRESHOLD, 2**30)
