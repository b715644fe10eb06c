"""What Linux tells of memory and of processes, in /proc; nothing on another system."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def proc_bytes(table: str, field: str) -> int | None:
    """Return a figure from one of /proc's tables of kilobytes (`self/status`, `meminfo`); None on another system."""
    try:
        lines = Path("/proc", table).read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def family(pid: int) -> Iterator[int]:
    """Yield the ids of a process and of all that it started."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended
            for child in children.read_text().split():
                yield from family(int(child))


def open_files(pid: int) -> list[str]:
    """Return what a process has open: paths, and the system's names for what has none. OSError once it has ended."""
    folder = f"/proc/{pid}/fd"
    found = []
    for entry in os.listdir(folder):
        with suppress(FileNotFoundError):  # closed meanwhile
            found.append(os.readlink(f"{folder}/{entry}"))
    return found


def count_threads(pid: int) -> int:
    """Return how many threads a process has. OSError once it has ended."""
    return len(os.listdir(f"/proc/{pid}/task"))
