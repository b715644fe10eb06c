"""A run's folder belongs to one process at a time, and remembers why its run failed."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dgcnn_ws.engine.folder import claim as claims
from dgcnn_ws.engine.folder.claim import claim, is_claimed, is_free, read_failure, recording, sole
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.errors import InputError


def hold(folder: Path) -> None:
    with claim(folder) as mine:
        assert mine
        (folder / "held").write_text("")
        signal.pause()


@contextmanager
def held_by_another(folder: Path) -> Iterator[None]:
    """Another process holds the folder until it is killed at the end of the block."""
    process = multiprocessing.get_context("spawn").Process(target=hold, args=(folder,))
    process.start()
    while not (folder / "held").exists():
        assert process.is_alive()
        time.sleep(0.02)
    try:
        yield
    finally:
        process.kill()
        process.join()


def test_a_claim_is_held_by_one_and_let_go_by_the_dead(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with claim(folder) as first, claim(folder) as second:
        assert first and not second
        assert is_claimed(folder)
    assert not is_claimed(folder) and not is_claimed(tmp_path)
    with held_by_another(folder):
        assert is_claimed(folder)
        with claim(folder) as mine:
            assert not mine
        with pytest.raises(InputError, match="is being trained by another process"), sole(folder):
            pass
    with claim(folder) as mine:
        assert mine


def test_another_machine_s_claim_holds_until_it_is_seen_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, other = [100.0], tmp_path / "claim.4"
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    (tmp_path / "claim").touch()  # no lock reaches here from that machine
    other.write_text("node7 an-id-of-its-boot")
    os.utime(other, (0, 0))  # by a clock that differs by decades
    assert not is_free(tmp_path)
    now[0] += claims.SILENCE
    os.utime(other, (5, 5))  # it lives
    assert not is_free(tmp_path)
    now[0] += claims.SILENCE - 1
    with claim(tmp_path) as mine:
        assert not mine
    now[0] += 2
    assert is_free(tmp_path)
    with claim(tmp_path) as mine:
        assert mine and (tmp_path / "claim.5").exists()
        assert not is_free(tmp_path)
    assert is_free(tmp_path)
    other.write_text("node7 an-id-of-its-boot")
    (tmp_path / "claim.6").write_text(claims.FREE)  # let go, on another machine
    with claim(tmp_path) as mine:
        assert mine
    assert sorted(path.name for path in tmp_path.glob("claim.*")) == ["claim.6", "claim.7"]


def test_where_locks_do_not_reach_one_of_two_takes_what_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims.fcntl, "flock", lambda file, how: None)
    monkeypatch.setattr(claims, "SILENCE", -1.0)  # both have seen it silent
    (tmp_path / "claim.1").write_text("node7 an-id-of-its-boot")
    listed = claims._last
    old = listed(tmp_path)
    seen = [old, None, old]  # neither sees yet what the other does, but by what it makes itself
    monkeypatch.setattr(claims, "_last", lambda folder: (seen.pop(0) if seen else None) or listed(folder))
    with claim(tmp_path) as first, claim(tmp_path) as second:
        assert first and not second


def test_a_listing_that_is_an_old_one_gives_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed, old = claims._last, (1, tmp_path / "claim.1")
    monkeypatch.setattr(claims, "SILENCE", -1.0)
    old[1].write_text("node7 an-id-of-its-boot")
    (tmp_path / "claim.9").write_text("node8 another-id")  # which lives; those between are gone
    seen = [old]
    monkeypatch.setattr(claims, "_last", lambda folder: seen.pop() if seen else listed(folder))
    with claim(tmp_path) as mine:
        assert not mine


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_without_locks_signs_of_life_decide_on_one_machine_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def flock(file: object, how: int) -> None:
        raise OSError(code, os.strerror(code))

    now = [100.0]
    monkeypatch.setattr(claims.fcntl, "flock", flock)
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    with claim(tmp_path) as first:
        assert first and is_claimed(tmp_path) and not is_free(tmp_path)
        now[0] += claims.SILENCE - 1
        with claim(tmp_path) as second:
            assert not second
    assert not is_claimed(tmp_path) and is_free(tmp_path)
    (tmp_path / "claim.2").write_text(claims._here())  # of a process that was killed
    assert is_claimed(tmp_path) and not is_free(tmp_path)
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    with sole(tmp_path):  # waits until that is sure
        (tmp_path / "config.json").write_text("{}")
    assert now[0] > 100 + claims.SILENCE


def test_an_error_of_the_file_system_does_not_end_the_signs_of_life(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from dgcnn_ws.engine.folder import claim as claims\n"
        "listed, broken = claims._last, [1, 1]\n"
        "def last(folder):\n"
        "    if threads() and broken: broken.pop(); raise OSError(5, 'Input/output error')\n"
        "    return listed(folder)\n"
        "import threading; threads = lambda: threading.current_thread() is not threading.main_thread()\n"
        "claims.BEAT, claims._last = 0.01, last\n"
        "with claims.claim(Path(sys.argv[1])):\n"
        "    while broken: time.sleep(0.01)\n"
        "    (Path(sys.argv[1]) / 'claim.2').write_text('node7')\n"
        "    time.sleep(600)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == claims.TAKEN


def test_a_holder_that_was_taken_for_lost_ends_before_it_writes(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from dgcnn_ws.engine.folder import claim as claims\n"
        "claims.BEAT = 0.01\n"
        "with claims.claim(Path(sys.argv[1])):\n"
        "    (Path(sys.argv[1]) / 'claim.2').write_text('node7')\n"
        "    time.sleep(600)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == claims.TAKEN
    assert done.stderr.strip().startswith("error: another process has taken") and "Traceback" not in done.stderr


def test_a_glance_does_not_turn_a_run_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    file = open(tmp_path / "run/claim", "a+")  # noqa: SIM115
    fcntl.flock(file, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: file.close())  # it ends while the other one waits
    with sole(tmp_path / "run"):
        (tmp_path / "run/config.json").write_text("{}")
    assert file.closed


def test_where_no_run_was_made_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(InputError), sole(tmp_path / "run"):
        raise InputError("no data")
    assert not list(tmp_path.iterdir())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("")
    with pytest.raises(InputError), sole(tmp_path / "other"):
        raise InputError("no data")
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["mine.txt"]
    with sole(tmp_path / "run"):
        (tmp_path / "run/config.json").write_text("{}")
    assert (tmp_path / "run/claim").exists()


def test_failures_are_kept_until_the_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), recording(tmp_path):
        _ = 1 / 0
    assert read_failure(tmp_path) == "ZeroDivisionError: division by zero"
    assert "Traceback" in json.loads((tmp_path / "failure.json").read_text())["details"]
    with pytest.raises(InputError), recording(tmp_path):
        raise InputError("the loss\nbecame | nan.")
    assert read_failure(tmp_path) == "the loss became / nan."
    for stop in (Interrupted("stopped", 15), KeyboardInterrupt()):
        with pytest.raises(type(stop)), recording(tmp_path):
            raise stop
        assert read_failure(tmp_path) is None
