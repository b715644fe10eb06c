"""The soak watcher tells a leak from a flat curve, and stops what it watches.

What is watched waits for the watcher's own samples, never for a time: a busy machine makes it slower, no other.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.checks import soak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory from /proc")

# Follows the watcher: [(seconds, MB), ...] of the samples that it has written so far.
FOLLOW = """
import sys, time
def samples():
    time.sleep(0.01)
    whole = open(sys.argv[1]).read().rpartition("\\n")[0]
    return [tuple(map(float, line.split(",")[:2])) for line in whole.splitlines()[1:]]
kept = []
"""
ENDLESS = FOLLOW + "while True: samples()"
FAIL = FOLLOW + "while not samples(): pass\nsys.exit(7)"
GROW = FOLLOW + "while len(kept) < 40: kept += [{} for _ in range(len(samples()) - len(kept))]"  # with each sample
LEAK, FILES = GROW.format("bytearray(b'x') * 1_000_000"), GROW.format("open('/dev/null')")
# Stays until its start is less than a tenth of its time, as it is of a long run's.
FLAT = (
    FOLLOW
    + """
kept = b'x' * 50_000_000
while not (large := [at for at, mb in samples() if mb > 50]) or large[-1] < 12 * (large[0] + 0.1): pass
"""
)
CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {FLAT!r}, sys.argv[1]], check=True)"


def watched(code: str, folder: Path, *flags: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-c", code, str(folder / "samples.csv")]
    exit_code = soak.main(["--every", "0.02", "--out", str(folder), *flags, "--", *command])
    return exit_code, json.loads((folder / "soak.json").read_text())


def test_a_line_has_its_slope() -> None:
    hours = np.linspace(0, 2, 201)
    rss = np.where(hours < 0.1, 10.0, 100 + 7 * hours)  # a start that is not part of the line
    found = soak.summarize(np.stack([3600 * hours, rss, 3 + (hours > 1), 2 * hours], axis=1))
    assert found["hours"] == 2 and found["mb_per_hour"] == pytest.approx(7)
    assert found["first_tenth_mb"] == pytest.approx(100 + 7 * 0.285) and found["most_mb"] == 114
    assert found["last_tenth_mb"] == pytest.approx(100 + 7 * 1.915) and found["files"] == [3, 4]


def test_a_leak_shows(tmp_path: Path) -> None:
    exit_code, found = watched(LEAK, tmp_path)
    assert exit_code == 0
    assert found["mb_per_hour"] > 0 and found["last_tenth_mb"] > found["first_tenth_mb"] + 15
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == found["samples"] + 1


def test_it_is_told_to_stop_when_its_time_is_over(tmp_path: Path) -> None:
    exit_code, found = watched(ENDLESS, tmp_path, "--hours", "0.0001")
    assert found["exit_code"] == -15 and exit_code == 143  # a training run says 143 itself


@pytest.mark.parametrize("code", [FLAT, CHILD], ids=["alone", "child"])
def test_a_flat_curve_is_flat_and_children_count(code: str, tmp_path: Path) -> None:
    exit_code, found = watched(code, tmp_path)
    assert exit_code == 0
    assert found["most_mb"] > 50 and found["last_tenth_mb"] - found["first_tenth_mb"] < 10  # pages may be taken back


def test_files_left_open_show(tmp_path: Path) -> None:
    _, found = watched(FILES, tmp_path)
    least, most = found["files"]
    assert most - least > 15


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    exit_code, _ = watched(FAIL, tmp_path)
    assert exit_code == 7
    assert soak.main(["--out", str(tmp_path)]) == 2
