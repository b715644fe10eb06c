"""The fuzzer sees what it is there to see, and the readers pass a few of its inputs."""

import mmap
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from dgcnn_ws.errors import InputError
from scripts.checks import fuzz_datasets, fuzz_files, fuzzing
from scripts.checks.fuzz_datasets import TARGETS
from scripts.checks.fuzzing import READ, REFUSED, Arguments, Target, fuzz, read_each

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory from /proc")


def crash(content: bytes, folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out


def hang(content: bytes, folder: Path) -> None:
    time.sleep(60)


def spin(content: bytes, folder: Path) -> None:
    while True:
        pass


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
        (spin, "HUNG"),
        (hoard, "TOOK "),
        (obey, "TOUCHED "),
        (stumble, "KeyError: "),
        (refuse, REFUSED),
        (accept, READ),
    ],
)
def test_every_outcome_is_told_from_the_others(feed: fuzzing.Use, outcome: str, tmp_path: Path) -> None:
    args = Arguments(inputs=2, seconds=0.3 if feed in (hang, spin) else 20)
    target = Target(lambda seed, number: b"1 + 1", feed, fuzz_datasets.is_forbidden)
    first, second = (seen for seen, _, _ in read_each(target, args, tmp_path))
    assert first.startswith(outcome) and second.startswith(outcome)  # what befell one does not stop the next


ALL = TARGETS | {f".{kind}": partial(fuzz_files.target, kind) for kind in ("xyz", "npz", "zip")}


@pytest.mark.parametrize("name", list(ALL))
def test_the_readers_pass_a_few_inputs(name: str, tmp_path: Path) -> None:
    row, wrong = fuzz(name, ALL[name](), Arguments(inputs=40, seed=1, seconds=30, keep=tmp_path))
    assert wrong == 0 and row[1] == "40" and int(row[2]) + int(row[3]) == 40 and int(row[3]) > 0
    assert not list(tmp_path.iterdir())


def test_what_went_wrong_is_kept(tmp_path: Path) -> None:
    target = Target(lambda seed, number: bytes([seed, number]), stumble, fuzz_datasets.is_forbidden)
    row, wrong = fuzz("odd", target, Arguments(inputs=3, seed=7, seconds=20, keep=tmp_path))
    assert wrong == 3 and row[:5] == ["odd", "3", "0", "0", "3"]
    assert (tmp_path / "odd-7-2").read_bytes() == bytes([7, 2])


@pytest.mark.parametrize("name", list(ALL))
def test_inputs_depend_on_the_seed_alone(name: str) -> None:
    one, other = ALL[name](), ALL[name]()
    assert [one.make(0, i) for i in range(9)] == [other.make(0, i) for i in range(9)]
    assert [one.make(0, i) for i in range(9)] != [other.make(1, i) for i in range(9)]
