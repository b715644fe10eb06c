"""Several processes train as one would: gradients, statistics and scores, and how they agree."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from dgcnn_ws.engine.parallel.processes import check_started, is_first, started
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))

from train_in_processes import BATCH, LINUX, STEPS, take_step

PATIENCE = 300  # seconds; on a busy machine starting a process takes long


@pytest.mark.parametrize("count", [2, 3])
def test_processes_do_together_what_one_does(
    count: int, easy_root: Path, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    """2 processes, started by torchrun, and 3, started by the first of them: see `train_in_processes`."""
    seen = train_in_processes(count, easy_root, tmp_path, clean_environment)
    check_gradients_and_statistics_are_those_of_one_process(seen, count, easy_root, tmp_path)
    check_gradients_travel_once_a_step(seen, count)
    check_every_cloud_is_scored_once(seen)
    check_an_error_of_one_process_is_raised_in_all(seen, count)
    check_no_thread_of_gloo_outlives_python(seen)


def train_in_processes(count: int, easy_root: Path, folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("train_in_processes.py"))
    command = [sys.executable, *(torchrun if count == 2 else []), script, str(easy_root), str(folder)]
    command += [] if count == 2 else [str(count)]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return torch.load(folder / "seen.pt", weights_only=True) | {"stderr": done.stderr}


def check_gradients_and_statistics_are_those_of_one_process(
    seen: dict[str, Any], count: int, easy_root: Path, tmp_path: Path
) -> None:
    for name, (*_, micro_batch) in STEPS.items():
        step, one = seen["steps"][name], take_step(name, 1, count * micro_batch, easy_root, tmp_path / "one")
        assert step["the same everywhere"], name
        difference = ((step["gradient"] - one["gradient"]).norm() / one["gradient"].norm()).item()
        if name == "bn":  # two clouds have other moments than each of them
            assert difference > 1e-2
            continue
        assert difference < 1e-6, name
        torch.testing.assert_close(step["statistics"], one["statistics"], rtol=1e-6, atol=1e-9, msg=name)
        torch.testing.assert_close(step["sums"], one["sums"], rtol=1e-6, atol=0)


def check_gradients_travel_once_a_step(seen: dict[str, Any], count: int) -> None:
    for name, (preset, norm, head_norm, sync_bn, micro_batch) in STEPS.items():
        step = seen["steps"][name]
        gradient = 8 * step["gradient"].numel()
        channels = {"dgcnn": 512 + 32, "paper": (64 + 128 + 1024) + 512 + 256 + (64 + 64 + 64 + 128) + 32}[preset]
        if (
            sync_bn or head_norm == "bn_whole"
        ):  # for each micro-batch and norm: the moments forward, their gradients backward
            layers, channels = (7, channels + 512 + 256) if preset == "dgcnn" else (12, channels + 512 + 256)
            passes = BATCH // (count * micro_batch)
            if head_norm == "bn_whole":  # the head alone, and once
                layers, channels, passes = 2, 512 + 256, 1
            assert step["calls"]["allgather_"] == layers * passes
            assert step["bytes"]["allgather_"] == 8 * count * (2 * channels + layers) * passes
            assert step["bytes"]["allreduce_"] == gradient + 8 * 2 * channels * passes
            continue
        estimated = (64 if head_norm == "est" else 0) + (channels if norm == "ws_bcn" else 0)
        assert step["bytes"] == {"allreduce_": gradient + 8 * 3 * estimated}
        assert step["calls"] == {"allreduce_": 1 + (estimated > 0)}


def check_every_cloud_is_scored_once(seen: dict[str, Any]) -> None:
    for shared, alone in zip(seen["scores"], seen["alone"], strict=True):
        assert shared.pop("loss") == pytest.approx(alone.pop("loss"), rel=1e-12)
        for name in ("instance_miou", "class_miou"):
            if name in alone:
                assert shared.pop(name) == pytest.approx(alone.pop(name), rel=1e-12)
        assert str(shared) == str(alone)  # where a class has no clouds its score is nan


def check_an_error_of_one_process_is_raised_in_all(seen: dict[str, Any], count: int) -> None:
    agreed = seen["agreed"]
    assert agreed["largest"] == (count - 1, 0)
    assert agreed["input"] == "no such cloud." and agreed["disk"] == "last.pt: No space left."
    assert agreed["reading"] == ([("first", (1, 0))], "the file is gone.")
    assert agreed["turns"].tolist() == [1] * 11
    assert agreed["scoring"] == ["no such cloud."] * 3
    assert seen["stderr"].count("error: ") == seen["stderr"].count("error: the last process cannot.") == 1


def check_no_thread_of_gloo_outlives_python(seen: dict[str, Any]) -> None:
    """One that dropped a collective's last tensor while Python ended aborted one run in some hundred."""
    said = [line for line in seen["stderr"].splitlines() if line.startswith("alive at the end")]
    assert set(said) == ({"alive at the end:"} if LINUX else set())


def test_who_started_it(monkeypatch: pytest.MonkeyPatch, clean_environment: dict[str, str]) -> None:
    for name in set(os.environ) - set(clean_environment):
        monkeypatch.delenv(name)
    assert started() is None
    check_started(4, 1)
    with pytest.raises(InputError, match="--nodes 2 needs torchrun or srun"):
        check_started(4, 2)
    for name, value in {"MASTER_ADDR": "host", "MASTER_PORT": "29500", "NODE_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    check_started(4, 2)
    assert is_first() and not is_first(2)  # of a run on this machine alone; of one on two
    for name, value in {"MASTER_PORT": "a", "NODE_RANK": "2", "LOCAL_RANK": "1"}.items():
        with monkeypatch.context() as changed, pytest.raises(InputError, match=name):
            changed.setenv(name, value)
            check_started(4, 2)
    for name, value in {"SLURM_NTASKS": "8", "SLURM_NNODES": "2"}.items():
        monkeypatch.setenv(name, value)
    assert started() is None  # a job's script, which srun has not started
    monkeypatch.setenv("SLURM_STEP_ID", "4294967291")  # by which newer versions call it
    assert started() is None
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert started() == (4, 2)
    assert complete(Recipe()).processes == 8
    with pytest.raises(InputError, match="--devices 8 --nodes 1 was asked for, but 4 processes on each of 2 machines"):
        check_started(8, 1)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # an interactive job, whose commands srun has not started
    assert started() is None
