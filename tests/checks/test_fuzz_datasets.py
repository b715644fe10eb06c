"""The fuzzer sees what it is there to see, and the readers pass a few of its inputs."""

import mmap
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from dgcnn_ws.errors import InputError
from scripts.checks import fuzz_datasets
from scripts.checks.fuzz_datasets import ACCEPTED, REFUSED, TARGETS, Arguments, fuzz, read_each

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory from /proc")


def crash(content: bytes, folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out


def hang(content: bytes, folder: Path) -> None:
    time.sleep(60)


def hoard(content: bytes, folder: Path) -> None:
    with mmap.mmap(-1, 100 << 20) as held:  # not malloc's, which may keep it
        for _ in range(100):
            held.write(bytes(1 << 20))


def obey(content: bytes, folder: Path) -> None:
    exec(content)


def stumble(content: bytes, folder: Path) -> None:
    raise KeyError("an error that a user cannot use")


def refuse(content: bytes, folder: Path) -> None:
    raise InputError("One sentence.")


def accept(content: bytes, folder: Path) -> None:
    (folder / "file").write_bytes(content)


@pytest.mark.parametrize(
    ("feed", "outcome"),
    [
        (crash, "DIED with exit code -9"),
        (hang, "HUNG"),
        (hoard, "TOOK "),
        (obey, "EXECUTED "),
        (stumble, "KeyError: "),
        (refuse, REFUSED),
        (accept, ACCEPTED),
    ],
)
def test_every_outcome_is_told_from_the_others(feed: fuzz_datasets.Feed, outcome: str, tmp_path: Path) -> None:
    args = Arguments(inputs=2, seconds=1 if feed is hang else 20)
    first, second = (seen for seen, _, _ in read_each((lambda rng: b"1 + 1", feed), args, tmp_path))
    assert first.startswith(outcome) and second.startswith(outcome)  # what befell one does not stop the next


@pytest.mark.parametrize("target", list(TARGETS))
def test_the_readers_pass_a_few_inputs(target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz(target, Arguments(inputs=40, seed=1, seconds=30, keep=tmp_path))
    assert f"{target}: 40 inputs" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("target", list(TARGETS))
def test_inputs_depend_on_the_seed_alone(target: str) -> None:
    generate, _ = TARGETS[target]
    assert [generate(random.Random(i)) for i in range(9)] == [generate(random.Random(i)) for i in range(9)]
