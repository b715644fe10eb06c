"""`python -m scripts.inject_faults`: break training in every way that can be thought of, and count what is lost.

Every trial breaks a tiny training run (or a study of two) in one way, undoes what was done to its surroundings and goes
on with the same command. Survived means: the command either went on by itself, or said in one sentence of `error:`
what is wrong, or died of the signal; and then the run ended with the weights, metrics and results of one that nothing
happened to, bit for bit (times and memory aside). Everything else is lost. The faults follow from the seed, the
moments also from the machine's pace. Linux only; disks of a given size need the right to mount, and are otherwise a
limit on the size of files.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import tyro
from tqdm import tqdm

import main as command_line
from dgcnn_ws.engine import plots, training
from dgcnn_ws.engine.checkpoint import load_checkpoint
from dgcnn_ws.engine.devices import family
from scripts import train  # noqa: F401  loaded once, for all processes that are forked from this one

ROOT = Path(__file__).parents[1]
NETWORK = ["--num-points", "32", "--k", "5", "--emb-dims", "32", "--batch-size", "8", "--epochs", "3", "--lr", "1e-3"]
GRID = ["--norms", "gn,ws_gn", "--micro-batches", "8", "--seeds", "1", "--jobs", "2"]
TIMES = ("seconds", "clouds_per_second", "peak_memory_bytes", "memory_bytes")
PATIENCE = 600  # seconds after which a command counts as hanging


@dataclass(frozen=True)
class Arguments:
    kills: int = 20
    """SIGKILLs of `main.py train` at random moments, each of a process of its own."""
    count: int = 50
    """Faults of each other kind that is cheap; of the others a part of it."""
    only: str = ""
    """Kinds of faults to try, with commas between. Default: all."""
    seed: int = 0
    """Decides the faults."""
    forked: bool = False
    """Fork the processes that are killed from this one, which has torch loaded, instead of starting Python anew."""
    keep: Path | None = None
    """Folder for the runs that were lost."""


class Lost(Exception):
    """A fault that was not survived."""


@dataclass
class Bench:
    """Where trials are made, and what they are compared with."""

    work: Path
    rng: random.Random
    fresh: bool
    keep: Path | None
    whole: dict[str, Any] = field(default_factory=dict)  # what a run left alone ends with
    whole_study: dict[str, dict[str, Any]] = field(default_factory=dict)  # the same of each of a study's
    size: int = 0  # bytes of its files
    begins: float = 0.0  # seconds from a process's start to its training
    lasts: float = 0.0  # seconds from there to its end
    named: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.runs, self.run, self.study = (self.work / name for name in ("runs", "runs/run", "runs/study"))
        places = ["--data-root", str(self.work / "data"), "--out", str(self.runs)]
        self.settings = ["--dataset", "modelnet10", "--device", "cpu", *places, *NETWORK]

    def train(self) -> list[str]:
        """Return the command that starts the run, or goes on with it."""
        resume = ["--resume"] if (self.run / "config.json").exists() else []
        return ["train", *self.settings, "--name", "run", *resume]

    def compare(self) -> list[str]:
        return ["compare", *self.settings, *GRID, "--name", "study"]


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


def start(bench: Bench, arguments: list[str], fresh: bool = False, before: Callable[[], None] | None = None) -> Started:
    """Start `main.py` with arguments, in a fresh Python or in a fork of this one, where `before` is called first.

    A fork draws no pictures, which take half of a tiny run's time, unless `before` is given.
    """
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


def finish(bench: Bench, arguments: list[str], fresh: bool = False) -> None:
    """Run a command that must end well."""
    process = start(bench, arguments, fresh)
    if process.wait():
        raise Lost(f"exit code {process.code} with nothing in the way: {process.said()[-300:]}")


# --- what a run ended with ---


def outcome(folder: Path) -> dict[str, Any]:
    """Return what must not differ: weights, place, metrics and results of a finished run."""
    found: dict[str, Any] = {"leftovers": [path.name for path in folder.glob(".*")]}
    for name in ("last.pt", "best.pt"):
        content = load_checkpoint(folder / name)
        found[name] = {key: value for key, value in content.items() if key != "config"}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found["metrics"] = [json.loads(line) for line in lines]
    found["results"] = json.loads((folder / "results.json").read_text())
    return found


def differs(one: Any, other: Any, where: str = "") -> str | None:
    """Return the first place at which two outcomes differ in anything but times and memory."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return None if same else where
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in one.keys() | other.keys() if key not in TIMES]
        if missing := [key for key in keys if key not in one or key not in other]:
            return f"{where}.{missing[0]}"
        return next((place for key in keys if (place := differs(one[key], other[key], f"{where}.{key}"))), None)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((place for i, (a, b) in pairs if (place := differs(a, b, f"{where}[{i}]"))), None)
    return None if one == other and type(one) is type(other) else where


def check_told(process: Started) -> str:
    """Return the one sentence of an error that a user can use. Raises Lost for anything else."""
    lines = [line for line in process.said().splitlines() if line.startswith("error: ")]
    if process.code != 2 or len(lines) != 1 or "Traceback" in process.said():
        raise Lost(f"exit code {process.code}: {process.said()[-600:]}")
    return lines[0]


# --- faults on a run: each breaks something, undoes what it did around the run, and says how the command took it ---

WENT_ON, DIED, TOLD = "went on", "died of the signal", "one sentence"
Hows = list[str]  # of each fault that was injected in one trial


def start_training(bench: Bench) -> Started:
    """Start or resume the run and return when it is about to train: its events file is open."""
    events = len(list(bench.run.glob("events*")))
    process = start(bench, bench.train(), bench.fresh)
    while len(list(bench.run.glob("events*"))) <= events and process.poll() is None:
        time.sleep(0.005)
    return process


def kill(bench: Bench) -> Hows:
    """Three SIGKILLs at random moments, the first of them of the process's whole life."""
    hows = []
    for kill in range(3):
        if kill == 0:
            process = start(bench, bench.train(), bench.fresh)
            time.sleep(bench.rng.uniform(0, bench.begins))
        else:
            process = start_training(bench)
        time.sleep(bench.rng.uniform(0, bench.lasts))
        process.kill(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:  # it was quicker
            break
        hows.append(DIED)
    return hows


def kill_in_checkpoint(bench: Bench) -> Hows:
    """SIGKILL while the temporary file of last.pt or best.pt is there."""
    process, skip = start_training(bench), bench.rng.randrange(6)
    while process.poll() is None:
        if any(name.startswith((".last.pt", ".best.pt")) for name in os.listdir(bench.run)):
            skip -= 1
            if skip < 0:
                process.kill(signal.SIGKILL)
                break
            time.sleep(0.01)
    code = process.wait()
    return [DIED] if code == -signal.SIGKILL and any(bench.run.glob(".*.pt.*")) else []


def kill_at_write(bench: Bench) -> Hows:
    """SIGKILL at one of the run's writes: with half of the new file there, just before it takes its place, or after."""
    number, stage = bench.rng.randrange(20), bench.rng.choice(["half", "before", "after"])
    replace_file, calls = os.replace, 0

    def replace(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls > number and stage == "half":
            os.truncate(source, os.path.getsize(source) // 2)
        if calls > number and stage != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        replace_file(source, target)
        if calls > number:
            os.kill(os.getpid(), signal.SIGKILL)

    def before() -> None:
        os.replace = replace  # type: ignore[assignment]

    return [DIED] if start(bench, bench.train(), before=before).wait() == -signal.SIGKILL else []


def stop(bench: Bench) -> Hows:
    """SIGTERM or SIGINT in training: the place is saved, and the exit code says so."""
    signum, process = bench.rng.choice([signal.SIGTERM, signal.SIGINT]), start_training(bench)
    time.sleep(bench.rng.uniform(0, bench.lasts))
    process.kill(signum)
    code = process.wait()
    if code == 0:
        return []  # it was quicker
    if code == 128 + signum and "Traceback" not in process.said():
        return [WENT_ON if "add --resume" in process.said() else DIED]
    if code != -signum:
        raise Lost(f"exit code {code}: {process.said()[-600:]}")
    return [DIED]


def full_disk(bench: Bench) -> Hows:
    """A disk that is full somewhere between nothing and all that the run writes."""
    size = bench.rng.randrange(4096, int(1.1 * bench.size), 4096)
    if mount(bench, f"size={size}"):
        process = start(bench, bench.train(), before=lambda: None)
    else:
        largest = max(path.stat().st_size for path in (bench.work / "whole").iterdir())
        limit = bench.rng.randrange(1, largest)
        process = start(bench, bench.train(), before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    if process.wait() == 0:
        return []
    bench.named[Path(check_told(process).split(": ")[1]).name] += 1
    if bench.runs.is_mount():
        subprocess.run(["mount", "-o", "remount,size=1g", str(bench.runs)], check=True)
    return [TOLD]


def read_only(bench: Bench) -> Hows:
    """A folder that cannot be written to, from the start or when the run goes on."""
    half = bench.rng.random() < 0.5
    if not mount(bench, "size=1g"):
        return []
    if half:
        shutil.copytree(bench.work / "half", bench.run)
    subprocess.run(["mount", "-o", "remount,ro", str(bench.runs)], check=True)
    process = start(bench, bench.train())
    process.wait()
    check_told(process)
    subprocess.run(["mount", "-o", "remount,rw", str(bench.runs)], check=True)
    return [TOLD]


def mount(bench: Bench, options: str) -> bool:
    """Make the folder of runs a disk of its own; false where this process must not."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(bench.runs)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def resumed(bench: Bench, undo: Callable[[], object]) -> Hows:
    """Go on with what was broken, and undo the damage where that was refused."""
    process = start(bench, bench.train())
    if process.wait() == 0:
        return [WENT_ON]
    check_told(process)
    undo()
    return [TOLD]


def lost_data(bench: Bench) -> Hows:
    """The data set, or one of its files, is gone, cut off or changed when the run goes on."""
    shutil.copytree(bench.work / "half", bench.run)
    good, data = bench.work / "data", bench.work / "data.away"
    shutil.copytree(good, data)
    victim = bench.rng.choice(sorted(data.glob("*/*")))
    how = bench.rng.choice(["gone", "all gone", "damaged"])
    if how == "damaged":
        victim.write_bytes(damage(victim.read_bytes(), bench.rng))
    elif how == "gone":
        victim.unlink()
    else:
        shutil.rmtree(data)
        data.mkdir()

    def swap() -> None:
        for source, target in ((good, "swap"), (data, "data"), (bench.work / "swap", "data.away")):
            source.rename(bench.work / target)

    swap()
    try:
        return resumed(bench, lambda: None)
    finally:
        swap()
        shutil.rmtree(data)


def damage(content: bytes, rng: random.Random) -> bytes:
    """Return other bytes: some changed, zeroed, cut off, left out or put in."""
    changed = bytearray(content)
    while bytes(changed) == content:
        at, length = rng.randrange(len(content)), 1 << rng.randrange(10)
        how = rng.choice(["change", "zero", "cut", "remove", "insert"])
        if how == "change":
            changed[at] ^= 1 << rng.randrange(8)
        elif how == "zero":
            changed[at : at + length] = bytes(len(changed[at : at + length]))
        elif how == "cut":
            del changed[at:]
        elif how == "remove":
            del changed[at : at + length]
        else:
            changed[at:at] = rng.randbytes(length)
    return bytes(changed)


def damaged(name: str) -> Callable[[Bench], Hows]:
    """Return the fault of damaged bytes in one of an interrupted run's files."""

    def fault(bench: Bench) -> Hows:
        shutil.copytree(bench.work / "half", bench.run)
        path = bench.run / name
        content = path.read_bytes()
        path.write_bytes(damage(content, bench.rng))
        return resumed(bench, lambda: path.write_bytes(content))

    return fault


def diverge(bench: Bench) -> Hows:
    """A learning rate at which weights grow beyond all bounds, at once or after some epochs."""
    lr, warmup = 10 ** bench.rng.uniform(3, 30), 10 ** bench.rng.uniform(0, 12)
    optimizer = bench.rng.choice(["sgd", "adam", "adamw"])
    how = ["--lr", str(lr), "--warmup-epochs", str(warmup), "--optimizer", optimizer, "--name", "diverging"]
    process = start(bench, [*bench.train(), *how])
    if process.wait() == 0:
        return []
    if "became" not in check_told(process):
        raise Lost(process.said())
    for path in (bench.runs / "diverging").glob("*.pt"):  # from before
        bench.named["kept checkpoints"] += 1
        if not all(bool(value.isfinite().all()) for value in load_checkpoint(path)["model"].values()):
            raise Lost(f"{path.name} holds weights that are no numbers")
    shutil.rmtree(bench.runs / "diverging")
    return [TOLD]


# --- faults on a study ---


def start_study(bench: Bench) -> Started:
    """Start the study and return when one of its runs is about to train."""
    process = start(bench, bench.compare(), fresh=True)
    while not any(bench.study.glob("*/events*")) and process.poll() is None:
        time.sleep(0.005)
    time.sleep(bench.rng.uniform(0, 2 * bench.lasts))
    return process


def kill_study(bench: Bench) -> Hows:
    process = start_study(bench)
    process.kill(signal.SIGKILL)
    return [DIED] if process.wait() == -signal.SIGKILL else []


def kill_worker(bench: Bench) -> Hows:
    process = start_study(bench)
    for pid in family(process.pid):
        with suppress(OSError):
            if any(os.readlink(entry).endswith("/claim") for entry in Path(f"/proc/{pid}/fd").iterdir()):
                os.kill(pid, signal.SIGKILL)
                break
    else:
        process.wait()  # none had begun, or all were done
        return []
    process.wait()
    if "killed by signal 9" not in check_told(process):
        raise Lost(process.said())
    return [TOLD]


def stop_study(bench: Bench) -> Hows:
    signum, process = bench.rng.choice([signal.SIGTERM, signal.SIGINT]), start_study(bench)
    process.kill(signum)
    if process.wait() == 0:
        return []
    if process.code != 128 + signum or "the same command goes on" not in process.said():
        raise Lost(f"exit code {process.code}: {process.said()[-600:]}")
    return [WENT_ON]


def damaged_study(bench: Bench) -> Hows:
    """Damage in one file of a study: of a run that is finished, or of one that has to go on."""
    shutil.copytree(bench.work / "whole-study", bench.study)
    name = bench.rng.choice(["results.json", "failure.json", "config.json", "last.pt", "best.pt", "metrics.jsonl"])
    run = bench.rng.choice(sorted(path.parent for path in bench.study.glob("*/results.json")))
    path = run / name
    if name == "failure.json":
        path.write_text('{"error": "the process was killed by signal 9", "details": ""}')
    content = path.read_bytes()
    if name == "results.json":  # a changed digit in it would be another result, and nobody could know
        path.write_bytes(content[: bench.rng.randrange(len(content) - 2)])
    else:
        (run / "results.json").unlink()
        path.write_bytes(damage(content, bench.rng))
    process = start(bench, bench.compare(), fresh=True)
    if process.wait() == 0:
        return [WENT_ON]
    check_told(process)
    path.write_bytes(content)
    return [TOLD]


# --- trials ---


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it is, how to inject it, which share of --count, and what has to end well after it."""

    title: str
    fault: Callable[[Bench], Hows]
    share: float = 1.0
    ends: str | None = "run"


KINDS = {
    "kill": Kind("SIGKILL at a random moment", kill),
    "checkpoint": Kind("SIGKILL while a checkpoint is being written", kill_in_checkpoint, 0.4),
    "write": Kind("SIGKILL within, before and after each of the run's writes", kill_at_write, 2),
    "stop": Kind("SIGTERM or SIGINT at a random moment of training", stop, 0.4),
    "disk": Kind("full disk, at 4 KiB to all that is written", full_disk),
    "read-only": Kind("read-only folder, at the start or on resumption", read_only, 0.2),
    "data": Kind("data set, or one of its files, gone or damaged on resumption", lost_data),
    "diverge": Kind("weights that grow beyond all numbers", diverge, ends=None),
    "last": Kind("damaged last.pt on resumption", damaged("last.pt"), 2),
    "best": Kind("damaged best.pt on resumption", damaged("best.pt")),
    "config": Kind("damaged config.json on resumption", damaged("config.json"), 2),
    "metrics": Kind("damaged metrics.jsonl on resumption", damaged("metrics.jsonl")),
    "study-kill": Kind("`compare`: SIGKILL of the command", kill_study, 0.1, "study"),
    "study-worker": Kind("`compare`: SIGKILL of a process that trains", kill_worker, 0.1, "study"),
    "study-stop": Kind("`compare`: SIGTERM or SIGINT", stop_study, 0.1, "study"),
    "study-damage": Kind("`compare`: a damaged file in one run's folder", damaged_study, 0.3, "study"),
}


def clear(bench: Bench) -> None:
    if bench.runs.is_mount():
        subprocess.run(["umount", str(bench.runs)], check=True)
    shutil.rmtree(bench.runs, ignore_errors=True)
    bench.runs.mkdir()


def check_end(bench: Bench, ends: str | None) -> None:
    """Go on with the same command. Raises Lost where that does not end as if nothing had happened."""
    if ends == "run":
        if not (bench.run / "results.json").exists():
            finish(bench, bench.train())
        pairs = [(bench.run, bench.whole)]
    elif ends == "study":
        finish(bench, bench.compare(), fresh=True)
        pairs = [(bench.study / name, whole) for name, whole in bench.whole_study.items()]
    for folder, whole in pairs if ends else ():
        if place := differs(outcome(folder), whole):
            raise Lost(f"{folder.name} ended otherwise than one left alone: {place}")


def inject(bench: Bench, kind: Kind, count: int) -> tuple[Counter[str], list[str]]:
    """Inject so many faults of a kind; return how the commands took them, and what was lost."""
    hows: Counter[str] = Counter()
    lost: list[str] = []
    for _ in range(4 * count):  # some come too late, after the run's end
        if hows.total() + len(lost) >= count:
            break
        clear(bench)
        try:
            hows.update(kind.fault(bench))
            check_end(bench, kind.ends)
        except Lost as error:
            lost.append(f"{kind.title}: {error}")
            if bench.keep:
                shutil.copytree(bench.runs, bench.keep / f"{len(list(bench.keep.iterdir()))}")
    clear(bench)
    return hows, lost


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
    step = training.Run._optimizer_step

    def stopping(run: training.Run, points: torch.Tensor, targets: torch.Tensor) -> None:
        step(run, points, targets)
        if run.progress.step == 2 * len(run.loader):
            os.kill(os.getpid(), signal.SIGTERM)

    training.Run._optimizer_step = stopping  # type: ignore[assignment, method-assign]


def prepare(bench: Bench, study: bool) -> None:
    """Make the data, the runs that nothing happens to, and one that was interrupted."""
    write_clouds(bench.work / "data/modelnet10_ply_hdf5_2048")
    clear(bench)
    with open(bench.work / "log", "w") as log, redirect_stdout(log), redirect_stderr(log):
        if command_line.main(bench.train()):  # here, so that every fork has libraries and kernels loaded
            raise SystemExit(f"the first run failed: {(bench.work / 'log').read_text()}")
    clear(bench)
    begun = time.monotonic()
    process = start_training(bench)
    trains = time.monotonic()
    if process.wait():
        raise SystemExit(f"the run that nothing happens to failed: {process.said()}")
    bench.begins, bench.lasts = trains - begun, time.monotonic() - trains
    bench.whole = outcome(bench.run)
    bench.size = sum(path.stat().st_size for path in bench.run.iterdir())
    bench.run.rename(bench.work / "whole")
    if start(bench, bench.train(), before=stop_in_last_epoch).wait() != 128 + signal.SIGTERM:
        raise SystemExit("the run that was to be interrupted was not")
    bench.run.rename(bench.work / "half")
    if study:
        finish(bench, bench.compare(), fresh=True)
        bench.whole_study = {path.parent.name: outcome(path.parent) for path in bench.study.glob("*/results.json")}
        bench.study.rename(bench.work / "whole-study")


def main(arguments: list[str]) -> int:
    args = tyro.cli(Arguments, prog="python -m scripts.inject_faults", args=arguments, description=__doc__)
    kinds = {name: KINDS[name] for name in args.only.split(",")} if args.only else KINDS
    os.environ["OMP_NUM_THREADS"] = "1"
    tqdm.monitor_interval = 0  # a thread would not survive a fork
    torch.set_num_threads(1)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    lost: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), random.Random(args.seed), not args.forked, args.keep)
        prepare(bench, any(kind.ends == "study" for kind in kinds.values()))
        print(f"| fault | injected | {WENT_ON} | {DIED} | {TOLD} | lost |\n|---|---|---|---|---|---|", flush=True)
        for name, kind in kinds.items():
            count = args.kills if name == "kill" else max(1, round(kind.share * args.count))
            hows, failed = inject(bench, kind, count)
            lost += failed
            ways = " | ".join(str(hows[how]) for how in (WENT_ON, DIED, TOLD))
            print(f"| {kind.title} | {hows.total() + len(failed)} | {ways} | {len(failed)} |", flush=True)
    print("\nnamed in the sentences:", ", ".join(f"{name} {count}" for name, count in bench.named.most_common()))
    print("\n".join(lost[:50]))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
