"""Files that are written whole or not at all."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dgcnn_ws.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends well, and vanishes otherwise.

    A reader sees the old file or the new one, never half of one, also when the process is killed.
    """
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename = str(path)  # the name that the user knows
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what processes that were killed within `replacing` left in `folder`; none may be writing there now."""
    for path in folder.glob(".*.*.[0-9]*"):
        path.unlink(missing_ok=True)


def check_folder_of(*files: Path | None) -> None:
    """Raise InputError where a file cannot be written for its folder's sake: before the work, not after it."""
    for file in files:
        if file and not file.parent.is_dir():
            raise InputError(f"{file.parent} is not a folder, so {file.name} cannot be written there. Make it first.")
        if file and file.is_dir():
            raise InputError(f"{file} is a folder, so no file can be written there. Name a file in it.")
