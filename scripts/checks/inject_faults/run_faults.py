"""Faults on a run: each breaks something, undoes what it did around the run, and says how the command took it."""

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dgcnn_ws.engine.folder.checkpoint import load_checkpoint
from dgcnn_ws.proc import family
from scripts.checks.inject_faults.bench import (
    DIED,
    TOLD,
    WENT_ON,
    Bench,
    Hows,
    Lost,
    Started,
    check_told,
    start,
    start_training,
)


def kill(bench: Bench) -> Hows:
    """Three SIGKILLs at random moments, the first of them of the process's whole life."""
    hows = []
    for kill in range(3):
        if kill == 0:
            process = start(bench, "run")
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

    return [DIED] if start(bench, "run", before).wait() == -signal.SIGKILL else []


def stop(bench: Bench) -> Hows:
    """SIGTERM or SIGINT in training: the place is saved, and the exit code says so."""
    signum, process = bench.rng.choice([signal.SIGTERM, signal.SIGINT]), start_training(bench)
    time.sleep(bench.rng.uniform(0, bench.lasts))
    process.kill(signum)
    return how_it_stopped(process, signum)


def how_it_stopped(process: Started, signum: int) -> Hows:
    code = process.wait()
    if code == 0:
        return []  # it was quicker
    if code == 128 + signum and "Traceback" not in process.said():
        return [WENT_ON if "add --resume" in process.said() else DIED]
    if code != -signum:
        raise Lost(f"exit code {code}: {process.said()[-600:]}")
    return [DIED]


def end_one_of_two(bench: Bench) -> Hows:
    """A signal to one of two processes that train together: the other one ends too, and says why where it can."""
    signum, process = bench.rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]), start_training(bench, "pair")
    time.sleep(bench.rng.uniform(0, bench.pair_lasts))
    victims = list(family(process.pid))
    if len(victims) == 2:
        with suppress(ProcessLookupError):
            os.kill(bench.rng.choice(victims), signum)
    if process.wait() == 2:
        check_told(process)
        return [TOLD]
    return how_it_stopped(process, signum)


def full_disk(bench: Bench) -> Hows:
    """A disk that is full somewhere between nothing and all that the run writes."""
    most = bench.rng.choice([1 << 16, int(1.1 * bench.size)])  # within settings and events, or within anything
    size = bench.rng.randrange(4096, most, 4096)
    if mount(bench, f"size={size}"):
        process = start(bench, "run", lambda: None)
    else:
        largest = max(path.stat().st_size for path in (bench.work / "whole").iterdir())
        limit = bench.rng.randrange(1, largest)
        process = start(bench, "run", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
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
    process = start(bench, "run")
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
    process = start(bench, "run")
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
    process = start(bench, "run", more=how)
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
