"""Training that is killed at random moments ends with the bits of one left alone; and what differs would be seen."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts.checks.inject_faults.outcome import differs
from scripts.checks.inject_faults.run_faults import damage

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes in /proc")


def test_killed_at_random_moments_and_in_a_checkpoint(tmp_path: Path) -> None:
    # In a process of its own, because it forks.
    kinds = ["--only", "kill,checkpoint", "--kills", "3", "--count", "1", "--seed", "7", "--forked"]
    command = [sys.executable, "-m", "scripts.checks.inject_faults", *kinds, "--keep", str(tmp_path / "lost")]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "SIGKILL" in line]
    assert len(rows) == 2
    for title, injected, _, died, _, lost in rows:
        assert int(injected) == int(died) >= (3 if "random" in title else 1) and lost == "0"
    assert not list((tmp_path / "lost").iterdir())


def test_what_differs_is_named() -> None:
    whole = {"last.pt": {"w": torch.ones(2)}, "metrics": [{"loss": 0.5, "seconds": 1.0}]}
    assert differs({"last.pt": {"w": torch.ones(2)}, "metrics": [{"loss": 0.5, "seconds": 2.0}]}, whole) is None
    nearly = torch.ones(2).nextafter(torch.zeros(2))
    assert differs({**whole, "last.pt": {"w": nearly}}, whole) == ".last.pt.w"
    assert differs({**whole, "metrics": [{"loss": 0.25, "seconds": 1.0}]}, whole) == ".metrics[0].loss"
    assert differs({**whole, "metrics": []}, whole) == ".metrics"
    assert differs({"last.pt": whole["last.pt"]}, whole) == ".metrics"


def test_damage_changes_something() -> None:
    rng = random.Random(0)
    for length in (1, 10, 5000):
        content = bytes(length)
        assert all(damage(content, rng) != content for _ in range(100))
