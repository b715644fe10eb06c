"""Processes that start one another, or that srun starts: killed, stopped, and as one voice."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from dgcnn_ws.engine.folder.claim import read_failure
from dgcnn_ws.engine.parallel.launch import _die_with, launch, one_voice
from dgcnn_ws.engine.parallel.processes import STARTER
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.engine.training import Run
from dgcnn_ws.errors import InputError
from dgcnn_ws.proc import family

pytestmark = pytest.mark.usefixtures("blank_pictures")

ROOT = Path(__file__).parents[3]
PATIENCE = 300  # seconds; on a busy machine starting a process takes long


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
    fields += ("head_norm", "optimizer", "lr", "device")
    flags = [part for name in fields for part in (f"--{name.replace('_', '-')}", str(getattr(recipe, name)))]
    return [str(ROOT / "main.py"), "train", *flags, "--out", str(folder.parent), "--name", folder.name, *more]


def wait_for(condition: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_process_killed_or_stopped_ends_all_and_the_run_goes_on_to_the_same_bits(
    recipe: Recipe, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    # Three, since the sums of two do not depend on the order.
    folder, recipe = tmp_path / "run", replace(recipe, head_norm="bn_whole", batch_size=12, epochs=20, dropout=0.5)
    killed = end_another_process(recipe, folder, clean_environment, signal.SIGKILL)
    assert killed.returncode == 2, killed.stderr
    assert killed.stderr.count("error: another process of this run ended early") == 1
    assert killed.stdout.count(f"{folder}: dgcnn with ws_gn, head bn_whole, on modelnet10, in 3 processes") == 1
    assert "another process of this run ended early" in str(read_failure(folder))
    stopped = end_another_process(recipe, folder, clean_environment, signal.SIGTERM, "--resume")
    assert stopped.returncode == 128 + signal.SIGTERM, stopped.stderr
    assert stopped.stderr.count("stopped after step") == 1
    assert "Traceback" not in killed.stderr + stopped.stderr
    for name, resume in (("run", ["--resume"]), ("whole", [])):
        arguments = [sys.executable, *command(recipe, tmp_path / name, "--devices", "3", *resume)]
        subprocess.run(arguments, env=clean_environment, stdout=subprocess.DEVNULL, timeout=PATIENCE, check=True)
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "run"))
    losses = [[line["train_loss"] for line in content["progress"]["history"]] for content in (whole, parts)]
    assert losses[0] == losses[1] and len(losses[0]) == 20
    for part in ("model", "optimizer"):
        torch.testing.assert_close(parts[part], whole[part], rtol=0, atol=0)


def end_another_process(
    recipe: Recipe, folder: Path, environment: dict[str, str], signum: int, *more: str
) -> subprocess.CompletedProcess[str]:
    """Start the run in three processes, and end one that the first started once two more epochs are trained."""
    metrics = folder / "metrics.jsonl"
    lines = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    arguments = [sys.executable, *command(recipe, folder, "--devices", "3", *more)]
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= lines + 2)
    _, child, *_ = family(process.pid)
    os.kill(child, signum)
    out, err = process.communicate(timeout=PATIENCE)
    wait_for(lambda: not Path(f"/proc/{child}").exists())
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def start_two(starter: str, arguments: list[str], environment: dict[str, str], *more: str) -> Iterator[Any]:
    """Start two processes as SLURM's srun does, or one on each of two machines by hand; yield them as they ended.

    Args:
        more: arguments of the second alone.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    if starter == "srun":
        told |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0"}
        told |= {"SLURM_JOB_NAME": "train", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NODELIST": "localhost"}
    else:
        arguments = [*arguments, "--devices", "1", "--nodes", "2"]
    ranks = ("SLURM_PROCID", "SLURM_LOCALID") if starter == "srun" else ("NODE_RANK",)
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments, *(more if rank == "1" else ())],
            env=environment | told | dict.fromkeys(ranks, rank),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for process in processes:
        out, err = process.communicate(timeout=PATIENCE)
        yield subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.mark.parametrize("starter", ["srun", "by hand"])
def test_one_process_goes_on_as_two(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean_environment: dict[str, str], starter: str
) -> None:
    Run(recipe, tmp_path / "whole", quiet=True).train()
    folder = tmp_path / "run"
    run = Run(recipe, folder, quiet=True)
    step = run.optimizer_step

    def step_and_signal(points: torch.Tensor, labels: torch.Tensor) -> None:
        step(points, labels)
        if run.progress.step + 1 == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run, "optimizer_step", step_and_signal)
    with pytest.raises(Interrupted):
        run.train()
    arguments = [str(ROOT / "main.py"), "train", "--resume", "--out", str(tmp_path), "--name", "run"]
    arguments += ["--stream"] if starter == "srun" else []  # each its own share, to the same batches
    first, second = start_two(starter, arguments, clean_environment)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "best.pt on test" in first.stdout and not second.stdout and not second.stderr
    assert_close(weights(folder), weights(tmp_path / "whole"))
    results = json.loads((folder / "results.json").read_text())
    assert results["last"]["num_clouds"] == 11 == sum(map(sum, results["last"]["confusion"]))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] and {line["num_clouds"] for line in lines} == {3}


@pytest.mark.parametrize("different", ["training data", "files"])
def test_machines_with_other_data_or_another_folder_are_told_so(
    recipe: Recipe, easy_root: Path, tmp_path: Path, clean_environment: dict[str, str], different: str
) -> None:
    if different == "files":
        Run(recipe, tmp_path / "run", quiet=True).train()
        (tmp_path / "run/results.json").unlink()
        shutil.copytree(tmp_path / "run", tmp_path / "other/run")
        (tmp_path / "other/run/last.pt").unlink()
        more = ["--out", str(tmp_path / "other")]
    else:
        shutil.copytree(easy_root, tmp_path / "data")
        with h5py.File(next((tmp_path / "data").rglob("*train*.h5")), "r+") as file:
            file["data"][0, 0] = 0.5
        more = ["--data-root", str(tmp_path / "data")]
    resume = ["--resume"] if different == "files" else []
    first, second = start_two("srun", command(recipe, tmp_path / "run", *resume), clean_environment, *more)
    assert first.returncode == second.returncode == 2, first.stderr + second.stderr
    assert first.stderr.count("error: ") == 1 and not second.stderr
    assert "the processes of this run" in first.stderr and f"different {different}" in first.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_bad_settings_are_reported_by_the_first_process_alone(
    rank: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {STARTER: "7", "LOCAL_RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(InputError), one_voice():
        raise InputError("a bad setting.")
    print("error", file=sys.stderr)
    assert capsys.readouterr().err == ("error\n" if rank == 0 else "")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_whose_parent_has_ended_ends_at_once() -> None:
    if (child := os.fork()) == 0:
        _die_with(os.getpid())  # which is not its parent
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def test_one_named_device_is_not_several() -> None:
    with pytest.raises(InputError, match="--device cuda:1 is one device"):
        launch(torch.device("cuda:1"), 2, 1)


def meet(names: dict[str, str], patience: float = 30.0) -> str:
    """Let two processes of a run meet, with `names` in the second one's environment; return what the first says."""
    program = (
        "import sys; from datetime import timedelta; import torch; from torch.distributed import TCPStore\n"
        "from dgcnn_ws.engine.parallel import launch; from dgcnn_ws.errors import InputError\n"
        "import os; rank = int(sys.argv[1]); launch.__version__ = os.environ.get('PLAYED', launch.__version__)\n"
        "store = TCPStore('127.0.0.1', int(sys.argv[2]), 2, rank == 0, wait_for_workers=False)\n"
        "try: print(launch._meet(store, rank, 2, timedelta(seconds=float(sys.argv[3]))))\n"
        "except InputError as error: print(error)\n"
        "sys.stdin.read()\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    told = [{}, names] if names else [{}]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(rank), port, str(patience)],
            env=os.environ | more,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank, more in enumerate(told)
    ]
    assert processes[0].stdout is not None
    said = processes[0].stdout.readline()
    for process in processes:
        process.communicate(timeout=PATIENCE)
    return said


def test_another_version_and_one_that_does_not_come_are_named() -> None:
    assert "process 1 of this run" in (said := meet({"PLAYED": "9.9"})) and "is dgcnn_ws 9.9" in said
    assert "of the 2 processes of this run number 1, counted from 0, did not come" in meet({}, patience=0.5)
