"""Who trains the run in a folder, and why it failed: one process at a time, known to all that see the folder."""

import fcntl
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from dgcnn_ws.engine.folder.checkpoint import read_json, write_json
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.errors import InputError

GLANCE = 0.2  # seconds: `is_claimed` may hold the lock for a moment
BEAT = 5.0  # seconds between two signs of life
SILENCE = 20.0  # seconds without one, after which another machine's process counts as gone
TAKEN = 75  # exit code of a process that finds its run taken over, or held, by another
FREE = "free"

# Of each other machine's claim: its last sign of life, and since when it was seen.
seen: dict[Path, tuple[int, float]] = {}


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Hold the run in `folder` while the block lasts: yields false where another process holds it.

    On one machine a lock on an open file decides (`claim`): a process lets go of it in whatever way it ends. Between
    machines locks may not reach, or stay when their machine is lost. So a holder also makes the file `claim.N`, of
    which each N can be made once, and touches it: who sees it untouched for SILENCE by a clock of his own makes
    `claim.N+1`, and a holder that finds this ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "claim"
    with open(path, "a") as file:
        locked = _lock(file, fcntl.LOCK_EX)
        # A file that was unlinked meanwhile (`sole`) locks nothing.
        still = path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))
        mine = _take(folder, locked) if still else None
        if mine is None:
            yield False
            return
        over = threading.Event()
        threading.Thread(target=_show_life, args=(mine, over), daemon=True).start()
        try:
            yield True
        finally:
            over.set()
            with suppress(OSError), open(mine, "r+") as claimed:  # not where the folder is gone
                claimed.write(FREE)
                claimed.truncate()


def _lock(file: IO[str], how: int) -> bool | None:
    """Return whether the lock was had; None on a file system without locks, where signs of life alone decide."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _take(folder: Path, locked: bool | None) -> Path | None:
    """Make the next of the folder's claims and return it; None where another process holds the last, or was faster.

    Args:
        locked: of `_lock`.
    """
    number, last = _last(folder)
    if (told := _by_signs(locked, last)) is not None:
        if not is_quiet(told):
            return None
    elif locked is False:
        return None
    mine = folder / f"claim.{number + 1}"
    try:
        with open(mine, "x") as file:
            file.write(_here())
    except FileExistsError:
        return None
    if _last(folder)[0] != number + 1:  # the listing was an old one, as network file systems keep them for a while
        return None
    for old in range(1, number):
        (folder / f"claim.{old}").unlink(missing_ok=True)
    return mine


def _show_life(mine: Path, over: threading.Event) -> None:
    while not over.wait(BEAT):
        with suppress(OSError):  # of a network file system, for a moment
            if _last(mine.parent)[0] > int(mine.suffix[1:]):
                print(
                    f"\nerror: another process has taken {mine.parent} over, since this one gave no sign of life for "
                    f"{SILENCE:.0f} s.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(TAKEN)  # before it writes
            os.utime(mine)


def _last(folder: Path) -> tuple[int, Path | None]:
    """Return the number of the folder's last claim, and its file; 0 and None where there is none."""
    numbers = [int(path.suffix[1:]) for path in folder.glob("claim.*") if path.suffix[1:].isdecimal()]
    return (max(numbers), folder / f"claim.{max(numbers)}") if numbers else (0, None)


def _here() -> str:
    """Return what names this machine, until it is started anew."""
    with suppress(OSError):
        return f"{platform.node()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return platform.node()


def _foreign(claimed: Path) -> bool:
    """Whether a claim is another machine's."""
    try:
        return claimed.read_text() not in (_here(), FREE)
    except OSError:  # gone meanwhile
        return False


def _by_signs(locked: bool | None, last: Path | None) -> Path | None:
    """Return the last claim if signs of life alone say whether it is held: another machine's, or one without locks."""
    return last if last is not None and (locked is None or _foreign(last)) else None


def _look(folder: Path) -> tuple[bool | None, Path | None]:
    """Return whether a folder's lock is free now (None: no locks), and its last claim; changes nothing there."""
    try:
        with open(folder / "claim") as file:
            return _lock(file, fcntl.LOCK_SH), _last(folder)[1]
    except OSError:  # never claimed, or not ours to read
        return True, None


def is_quiet(claimed: Path) -> bool:
    """Whether a claim was let go, or seen untouched for SILENCE; at first sight it lives."""
    try:
        with open(claimed) as file:  # over NFS, opening looks at the server's
            stamp = os.fstat(file.fileno()).st_mtime_ns
            if file.read() == FREE:
                return True
    except OSError:
        return False
    now = time.monotonic()
    if seen.get(claimed, (None, 0))[0] != stamp:
        seen[claimed] = stamp, now
    return now - seen[claimed][1] > SILENCE


@contextmanager
def sole(folder: Path) -> Iterator[None]:
    """Hold the run in `folder` while the block lasts; leaves no folder behind where the block makes no run in it.

    Waits for a process that may have been lost to show life, where that alone tells.

    Raises InputError where another process holds it.
    """
    patience = GLANCE if _by_signs(*_look(folder)) is None else SILENCE + BEAT
    deadline = time.monotonic() + patience
    while True:
        with claim(folder) as mine:
            if mine:
                try:
                    yield
                finally:
                    if not (folder / "config.json").exists():
                        with suppress(OSError):  # something else lies in it
                            for path in folder.glob("claim*"):
                                path.unlink(missing_ok=True)
                            folder.rmdir()
                return
        if time.monotonic() > deadline:
            raise InputError(f"{folder} is being trained by another process. Wait for it, or choose another --name.")
        time.sleep(0.02)


@contextmanager
def wait_for_turn(folder: Path) -> Iterator[None]:
    """Hold what `folder` stands for while the block lasts, after whoever holds it now."""
    while True:
        with claim(folder) as mine:
            if mine:
                yield
                return
        time.sleep(GLANCE)


def is_claimed(folder: Path) -> bool:
    """Whether a process holds the run in `folder`; changes nothing there.

    Where signs of life alone tell, one counts as long as the last is no older than SILENCE, by both clocks.
    """
    locked, last = _look(folder)
    if locked is False or (told := _by_signs(locked, last)) is None:
        return locked is False
    try:
        return told.read_text() != FREE and abs(time.time() - told.stat().st_mtime) < SILENCE
    except OSError:  # gone meanwhile
        return False


def is_free(folder: Path) -> bool:
    """Whether the run in `folder` may be claimed now; asked again and again, it notices a machine that was lost."""
    locked, last = _look(folder)
    told = _by_signs(locked, last)
    return locked is not False if told is None else is_quiet(told)


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
