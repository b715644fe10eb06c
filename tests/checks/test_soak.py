"""The soak watcher tells a leak from a flat curve, and stops what it watches."""

import json
import sys
from pathlib import Path

import pytest

from scripts.checks import soak

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory from /proc")

LEAK = "import time\nkept = []\nwhile True:\n kept.append(b'x' * 1_000_000); time.sleep(0.05)"  # 20 MB a second
FILES = "import time\nkept = []\nfor i in range(30):\n kept.append(open('/dev/null')); time.sleep(0.05)"
FLAT = "import time\nkept = b'x' * 50_000_000\ntime.sleep(1.5)"
CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {FLAT!r}], check=True)"


def watched(code: str, tmp_path: Path, *flags: str) -> tuple[int, dict[str, object]]:
    arguments = ["--every", "0.05", "--out", str(tmp_path), *flags, "--", sys.executable, "-c", code]
    return soak.main(arguments), json.loads((tmp_path / "soak.json").read_text())


def test_a_leak_shows(tmp_path: Path) -> None:
    code, found = watched(LEAK, tmp_path, "--hours", "0.0005")  # 1.8 s
    assert found["exit_code"] == -15 and code == 143  # told to stop; a training run says 143 itself
    assert found["mb_per_hour"] > 10_000 and found["last_tenth_mb"] > found["first_tenth_mb"] + 5
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == found["samples"] + 1


@pytest.mark.parametrize("code", [FLAT, CHILD])
def test_a_flat_curve_is_flat_and_children_count(code: str, tmp_path: Path) -> None:
    exit_code, found = watched(code, tmp_path)
    assert exit_code == 0
    assert found["most_mb"] > 50 and abs(found["last_tenth_mb"] - found["first_tenth_mb"]) < 30


def test_files_left_open_show(tmp_path: Path) -> None:
    _, found = watched(FILES, tmp_path)
    least, most = found["files"]
    assert most - least > 15


def test_a_command_that_fails_is_told(tmp_path: Path) -> None:
    code, _ = watched("import time, sys; time.sleep(0.3); sys.exit(7)", tmp_path)
    assert code == 7
    assert soak.main(["--out", str(tmp_path)]) == 2
