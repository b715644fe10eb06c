"""A bound on the memory that reading one file may take, whatever the file says."""

from collections.abc import Iterator
from contextlib import contextmanager

from dgcnn_ws.proc import proc_bytes

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


@contextmanager
def memory_bound(extra: int) -> Iterator[None]:
    """Let this process take `extra` bytes more than it has, on Linux; what asks for more gets a MemoryError.

    The bound is the whole process's: meant for a moment in which no other thread needs much.
    """
    taken = proc_bytes("self/status", "VmSize")
    if taken is None:  # not Linux
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    bound = taken + extra
    if before[0] != resource.RLIM_INFINITY:
        bound = min(bound, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (bound, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
