"""Several processes train as one would: gradients, statistics and scores, started in every way, and ended by any."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only

from dgcnn_ws.engine.processes import check_started, launch, one_voice, started
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.engine.training import Run
from dgcnn_ws.errors import InputError

sys.path.insert(0, str(Path(__file__).parent))

from train_in_processes import BATCH, STEPS, take_step

ROOT = Path(__file__).parents[2]
CLEAN = {
    name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "MASTER", "WORLD", "LOCAL"))
}
CLEAN |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
PATIENCE = 300  # seconds; on a busy machine starting a process takes long


@pytest.mark.parametrize("count", [2, 3])
def test_processes_do_together_what_one_does(count: int, easy_root: Path, tmp_path: Path) -> None:
    """2 processes, started by torchrun, and 3, started by the first of them: see `train_in_processes`."""
    seen = train_in_processes(count, easy_root, tmp_path)
    check_gradients_and_statistics_are_those_of_one_process(seen, count, easy_root, tmp_path)
    check_gradients_travel_once_a_step(seen, count)
    check_every_cloud_is_scored_once(seen)
    check_an_error_of_one_process_is_raised_in_all(seen, count)


def train_in_processes(count: int, easy_root: Path, folder: Path) -> dict[str, Any]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("train_in_processes.py"))
    command = [sys.executable, *(torchrun if count == 2 else []), script, str(easy_root), str(folder)]
    command += [] if count == 2 else [str(count)]
    done = subprocess.run(command, env=CLEAN, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
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
        if sync_bn:  # for each micro-batch and norm: the moments forward, their gradients backward
            layers, channels = (7, channels + 512 + 256) if preset == "dgcnn" else (12, channels + 512 + 256)
            passes = BATCH // (count * micro_batch)
            assert step["calls"]["allgather_"] == layers * passes
            assert step["bytes"]["allgather_"] == 8 * count * (2 * channels + layers) * passes
            assert step["bytes"]["allreduce_"] == gradient + 8 * 2 * channels * passes
            continue
        estimated = (64 if head_norm == "est" else 0) + (channels if norm == "ws_bcn" else 0)
        assert step["bytes"] == {"allreduce_": gradient + 8 * 3 * estimated}
        assert step["calls"]["allreduce_"] <= 3  # one or two for the gradients, one for the estimates


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
    assert seen["stderr"].count("error: ") == seen["stderr"].count("error: the last process cannot.") == 1


# --- the command line ---


@pytest.fixture(scope="module")
def recipe(easy_root: Path) -> Recipe:
    return complete(
        Recipe(
            dataset="modelnet10",
            data_root=easy_root,
            num_points=16,
            k=4,
            emb_dims=16,
            batch_size=8,
            micro_batch=2,
            epochs=2,
            dropout=0.0,
            optimizer="sgd",
            lr=0.01,
            device="cpu",
        )
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pt", weights_only=True)["model"]


def assert_close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4, msg=name)


def command(recipe: Recipe, folder: Path, *more: str) -> list[str]:
    fields = ("dataset", "data_root", "num_points", "k", "emb_dims", "batch_size", "micro_batch", "epochs", "dropout")
    fields += ("optimizer", "lr", "device")
    flags = [part for name in fields for part in (f"--{name.replace('_', '-')}", str(getattr(recipe, name)))]
    return [str(ROOT / "main.py"), "train", *flags, "--out", str(folder.parent), "--name", folder.name, *more]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_killed_or_stopped_ends_all_and_the_run_goes_on_to_the_same_bits(
    recipe: Recipe, tmp_path: Path
) -> None:
    folder, recipe = tmp_path / "run", replace(recipe, epochs=20, dropout=0.5)
    killed = end_the_second_process(recipe, folder, signal.SIGKILL)
    assert killed.returncode == 2, killed.stderr
    assert killed.stderr.count("error: another process of this run ended early") == 1
    assert killed.stdout.count(f"{folder}: dgcnn with ws_gn, head est, on modelnet10, in 2 processes") == 1
    stopped = end_the_second_process(recipe, folder, signal.SIGTERM, "--resume")
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert stopped.stderr.count("stopped after step") == 1
    assert "Traceback" not in killed.stderr + stopped.stderr
    for name, resume in (("run", ["--resume"]), ("whole", [])):
        arguments = [sys.executable, *command(recipe, tmp_path / name, "--devices", "2", *resume)]
        subprocess.run(arguments, env=CLEAN, stdout=subprocess.DEVNULL, timeout=PATIENCE, check=True)
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "run"))
    assert parts["progress"]["history"][-1]["train_loss"] == whole["progress"]["history"][-1]["train_loss"]
    for part in ("model", "optimizer"):
        torch.testing.assert_close(parts[part], whole[part], rtol=0, atol=0)


def end_the_second_process(
    recipe: Recipe, folder: Path, signum: int, *more: str
) -> subprocess.CompletedProcess[str]:
    """Start the run in two processes, and end the one that the first started once two more epochs are trained."""
    metrics = folder / "metrics.jsonl"
    lines = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    arguments = [sys.executable, *command(recipe, folder, "--devices", "2", *more)]
    process = subprocess.Popen(arguments, env=CLEAN, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= lines + 2)
    (child,) = children(process.pid)
    os.kill(child, signum)
    out, err = process.communicate(timeout=PATIENCE)
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def srun(arguments: list[str]) -> Iterator[subprocess.CompletedProcess[str]]:
    """Start two processes as SLURM's srun does, and yield them as they ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    slurm = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
    slurm |= {"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7", "SLURM_NODELIST": "localhost", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env=CLEAN | slurm | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE)
        yield subprocess.CompletedProcess(process.args, process.returncode, out, err)


def test_one_process_goes_on_as_two_under_slurm(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(recipe, tmp_path / "whole", quiet=True).train()
    folder = tmp_path / "run"
    run = Run(recipe, folder, quiet=True)
    step = run._optimizer_step

    def step_and_signal(points: torch.Tensor, labels: torch.Tensor) -> None:
        step(points, labels)
        if run.progress.step + 1 == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run, "_optimizer_step", step_and_signal)
    with pytest.raises(Interrupted):
        run.train()
    first, second = srun([str(ROOT / "main.py"), "train", "--resume", "--out", str(tmp_path), "--name", "run"])
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "best.pt on test" in first.stdout and not second.stdout and not second.stderr
    assert_close(weights(folder), weights(tmp_path / "whole"))
    results = json.loads((folder / "results.json").read_text())
    assert results["last"]["num_clouds"] == 11 == sum(map(sum, results["last"]["confusion"]))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] and {line["num_clouds"] for line in lines} == {3}


# --- what cannot be ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 3}, "--batch-size 8 cannot be shared by 3 processes"),
        ({"devices": 2, "nodes": 2, "norm": "bn", "head_norm": "bn", "micro_batch": 4}, "shared by 4 processes"),
        ({"devices": 2, "cuda_graph": True}, "--cuda-graph records one process's work"),
        ({"devices": 0}, "--devices is 0"),
        ({"sync_bn": True}, "--sync-bn is for batch norms, and --norm ws_gn with --head-norm est has none"),
        ({"norm": "bn", "head_norm": "bn", "micro_batch": 1, "devices": 2}, "cannot train at --micro-batch 1"),
    ],
)
def test_refuses_what_processes_cannot_do(recipe: Recipe, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        complete(replace(recipe, **changes))


def test_a_batch_norm_head_trains_on_one_cloud_a_process(recipe: Recipe) -> None:
    complete(replace(recipe, norm="bn", head_norm="bn", micro_batch=1, devices=2, sync_bn=True))


def test_who_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(CLEAN):
        monkeypatch.delenv(name)
    assert started() is None
    check_started(4, 1)
    with pytest.raises(InputError, match="--nodes 2 needs torchrun or srun"):
        check_started(4, 2)
    for name, value in {"SLURM_NTASKS": "8", "SLURM_NNODES": "2"}.items():
        monkeypatch.setenv(name, value)
    assert started() == (4, 2)
    assert complete(Recipe()).processes == 8
    with pytest.raises(InputError, match="--devices 8 --nodes 1 was asked for, but 4 processes on each of 2 machines"):
        check_started(8, 1)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # an interactive job, whose commands srun has not started
    assert started() is None


@pytest.mark.parametrize("rank", [0, 1])
def test_bad_settings_are_reported_by_the_first_process_alone(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", rank)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(InputError), one_voice():
        raise InputError("a bad setting.")
    print("error", file=sys.stderr)
    assert capsys.readouterr().err == ("error\n" if rank == 0 else "")


def test_one_named_device_is_not_several() -> None:
    with pytest.raises(InputError, match="--device cuda:1 is one device"):
        launch(torch.device("cuda:1"), 2, 1)
