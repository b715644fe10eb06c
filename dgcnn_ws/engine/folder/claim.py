"""Who trains the run in a folder, and why it failed: one process at a time, known to all that see the folder."""

import fcntl
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dgcnn_ws.engine.folder.checkpoint import read_json, write_json
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.errors import InputError

GLANCE = 0.2  # seconds: `is_claimed` may hold the lock for a moment


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Hold the run in `folder` while the block lasts: yields false where another process holds it.

    A lock on an open file: a process lets go of it in whatever way it ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "claim"
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:  # a file that was unlinked meanwhile (`sole`) locks nothing
            yield path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Hold the run in `folder` while the block lasts; leaves no folder behind where the block makes no run in it.

    Raises InputError where another process holds it.
    """
    deadline = time.monotonic() + GLANCE
    while True:
        with claim(folder) as mine:
            if mine:
                try:
                    yield
                finally:
                    if not (folder / "config.json").exists():
                        with suppress(OSError):  # something else lies in it
                            (folder / "claim").unlink(missing_ok=True)
                            folder.rmdir()
                return
        if time.monotonic() > deadline:
            raise InputError(f"{folder} is being trained by another process. Wait for it, or choose another --name.")
        time.sleep(0.02)


def is_claimed(folder: Path) -> bool:
    """Whether a process holds the run in `folder`; changes nothing there."""
    try:
        with open(folder / "claim") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # never claimed, not ours to read, or a file system without locks
        return False
    return False


@contextmanager
def recording(folder: Path) -> Iterator[None]:
    """Leave `failure.json` in the run's folder where the block fails; what failed before is forgotten.

    A request to stop is no failure, nor that nobody reads any more what the run says.
    """
    with suppress(OSError):
        (folder / "failure.json").unlink(missing_ok=True)
    try:
        yield
    except (Interrupted, BrokenPipeError):
        raise
    except Exception as error:
        sentence = str(error) if isinstance(error, InputError | OSError) else f"{type(error).__name__}: {error}"
        record_failure(folder, sentence, traceback.format_exc())
        raise


def record_failure(folder: Path, error: str, details: str = "") -> None:
    with suppress(OSError):  # a full disk: the missing results say it too
        write_json(folder / "failure.json", {"error": error, "details": details})


def read_failure(folder: Path) -> str | None:
    """Return why the run failed the last time it was tried, in one line, or None where it did not."""
    path = folder / "failure.json"
    if not path.exists():
        return None
    content = read_json(path)
    error = str(content.get("error") if isinstance(content, dict) else content)
    return " ".join(error.split()).replace("|", "/")  # one line, for a table
