"""Where faults are tried: tiny runs, commands in processes of their own, and what a run left alone ends with."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from dgcnn_ws.cli import main as command_line
from dgcnn_ws.engine import training
from dgcnn_ws.pictures import plots
from scripts.checks.inject_faults.outcome import outcome

ROOT = Path(__file__).parents[3]
NETWORK = ["--num-points", "32", "--k", "5", "--emb-dims", "32", "--batch-size", "8", "--epochs", "3", "--lr", "1e-3"]
GRID = ["--norms", "gn,ws_gn", "--micro-batches", "8", "--seeds", "1", "--jobs", "2"]
PATIENCE = 600  # seconds after which a command counts as hanging

WENT_ON, DIED, TOLD = "went on", "died of the signal", "one sentence"
Hows = list[str]  # of each fault that was injected in one trial


class Lost(Exception):
    """A fault that was not survived."""


@dataclass
class Bench:
    """Where trials are made, and what they are compared with."""

    work: Path
    rng: random.Random
    fresh: bool
    keep: Path | None
    whole: dict[str, dict[str, Any]] = field(default_factory=dict)  # what runs left alone end with, by their folders
    size: int = 0  # bytes of its files
    begins: float = 0.0  # seconds from a process's start to its training
    lasts: float = 0.0  # seconds from there to its end
    pair_lasts: float = 0.0  # the same of two processes
    named: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.runs, self.run, self.study = (self.work / name for name in ("runs", "runs/run", "runs/study"))
        places = ["--data-root", str(self.work / "data"), "--out", str(self.runs)]
        self.settings = ["--dataset", "modelnet10", "--device", "cpu", *places, *NETWORK]

    def command(self, what: str) -> list[str]:
        """Return the command that starts the `run`, the run of a `pair` of processes or the `study`, or goes on."""
        if what == "study":
            return ["compare", *self.settings, *GRID, "--name", what]
        together = ["--devices", "2"] if what == "pair" else []
        resume = ["--resume"] if (self.runs / what / "config.json").exists() else []
        return ["train", *self.settings, "--name", what, *together, *resume]


# --- processes ---


@dataclass
class Started:
    """A command in a process of its own."""

    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill(signal.SIGKILL)
                raise Lost(f"hung: {self.said()[-300:]}")
            time.sleep(0.002)
        return code

    def kill(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def start(bench: Bench, what: str, before: Callable[[], None] | None = None, more: Sequence[str] = ()) -> Started:
    """Start `bench.command(what)` in a fresh Python, or in a fork of this one, where `before` is called first.

    A fork draws no pictures, which take half of a tiny run's time, unless `before` is given.
    """
    arguments = [*bench.command(what), *more]
    fresh = what != "run" or (bench.fresh and before is None)
    log = bench.work / "log"
    pid = os.fork()
    if pid:
        return Started(pid, log)
    code = 99
    try:
        target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.chdir(ROOT)
        if fresh:
            os.execv(sys.executable, [sys.executable, "main.py", *arguments])
        torch.set_num_threads(1)
        if before is not None:
            before()
        else:
            plots.save = lambda figure, path: None
        code = command_line.main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def start_training(bench: Bench, what: str = "run") -> Started:
    """Start or resume a run and return when it is about to train: its events file is open."""
    folder = bench.runs / what
    events = len(list(folder.glob("events*")))
    process = start(bench, what)
    while len(list(folder.glob("events*"))) <= events and process.poll() is None:
        time.sleep(0.005)
    return process


def finish(bench: Bench, what: str) -> None:
    """Start what must end well."""
    process = start(bench, what)
    if process.wait():
        raise Lost(f"exit code {process.code} with nothing in the way: {process.said()[-300:]}")


def check_told(process: Started) -> str:
    """Return the one sentence of an error that a user can use. Raises Lost for anything else."""
    lines = [line for line in process.said().splitlines() if line.startswith("error: ")]
    if process.code != 2 or len(lines) != 1 or "Traceback" in process.said():
        raise Lost(f"exit code {process.code}: {process.said()[-600:]}")
    return lines[0]


# --- before the trials, and between them ---


def clear(bench: Bench) -> None:
    if bench.runs.is_mount():
        subprocess.run(["umount", str(bench.runs)], check=True)
    shutil.rmtree(bench.runs, ignore_errors=True)
    bench.runs.mkdir()


def write_clouds(folder: Path) -> None:
    """Write 40 training and 11 test clouds of three easy classes, in ModelNet's layout."""
    folder.mkdir(parents=True)
    stretch = np.array([[1, 1, 1], [0.05, 1, 0.05], [1, 0.05, 1]])
    (folder / "shape_names.txt").write_text("ball\npole\nsheet\n")
    for split, count in (("train", 40), ("test", 11)):
        labels = np.arange(count) % 3
        points = np.random.default_rng(count).normal(size=(count, 48, 3)) * stretch[labels][:, None]
        points /= np.linalg.norm(points, axis=2).max(1)[:, None, None]
        (folder / f"{split}_files.txt").write_text(f"{split}.h5\n")
        with h5py.File(folder / f"{split}.h5", "w") as file:
            file["data"], file["label"] = points.astype(np.float32), labels.astype(np.uint8)[:, None]


def stop_in_last_epoch() -> None:
    """Let this process's run ask itself to stop within its last epoch."""
    step = training.Run.optimizer_step

    def stopping(run: training.Run, points: torch.Tensor, targets: torch.Tensor) -> None:
        step(run, points, targets)
        if run.progress.step == 2 * len(run.loader):
            os.kill(os.getpid(), signal.SIGTERM)

    training.Run.optimizer_step = stopping  # type: ignore[assignment, method-assign]


def leave_alone(bench: Bench, what: str) -> tuple[float, float]:
    """Keep what a run ends with that nothing happens to; return the seconds before its training, and of it."""
    begun = time.monotonic()
    process = start_training(bench, what)
    trains = time.monotonic()
    if process.wait():
        raise SystemExit(f"the {what} that nothing happens to failed: {process.said()}")
    bench.whole[what] = {what: outcome(bench.runs / what)}
    return trains - begun, time.monotonic() - trains


def prepare(bench: Bench, kinds: set[str | None]) -> None:
    """Make the data, the runs that nothing happens to, and one that was interrupted."""
    write_clouds(bench.work / "data/modelnet10_ply_hdf5_2048")
    clear(bench)
    with open(bench.work / "log", "w") as log, redirect_stdout(log), redirect_stderr(log):
        if command_line.main(bench.command("run")):  # here, so that every fork has libraries and kernels loaded
            raise SystemExit(f"the first run failed: {(bench.work / 'log').read_text()}")
    clear(bench)
    bench.begins, bench.lasts = leave_alone(bench, "run")
    bench.size = sum(path.stat().st_size for path in bench.run.iterdir())
    bench.run.rename(bench.work / "whole")
    if start(bench, "run", stop_in_last_epoch).wait() != 128 + signal.SIGTERM:
        raise SystemExit("the run that was to be interrupted was not")
    bench.run.rename(bench.work / "half")
    if "pair" in kinds:
        _, bench.pair_lasts = leave_alone(bench, "pair")
    if "study" in kinds:
        finish(bench, "study")
        finished = [path.parent for path in bench.study.glob("*/results.json")]
        bench.whole["study"] = {f"study/{folder.name}": outcome(folder) for folder in finished}
        bench.study.rename(bench.work / "whole-study")
