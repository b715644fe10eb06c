"""`python -m scripts.checks.inject_faults`: break training in every way that can be thought of, and count what is lost.

Every trial breaks a tiny training run (or a study of two) in one way, undoes what was done to its surroundings and goes
on with the same command. Survived means: the command either went on by itself, or said in one sentence of `error:`
what is wrong, or died of the signal; and then the run ended with the weights, metrics and results of one that nothing
happened to, bit for bit (times and memory aside). Everything else is lost. The faults follow from the seed, the
moments also from the machine's pace. Linux only; disks of a given size need the right to mount, and are otherwise a
limit on the size of files.
"""

import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from tqdm import tqdm

from scripts.checks.inject_faults import run_faults, study_faults
from scripts.checks.inject_faults.bench import DIED, TOLD, WENT_ON, Bench, Hows, Lost, clear, finish, prepare
from scripts.checks.inject_faults.outcome import differs, outcome


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
    """Fork single processes from this one, which has torch loaded, instead of starting Python anew."""
    keep: Path | None = None
    """Folder for the runs that were lost."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what it is, how to inject it, which share of --count, and what has to end well after it."""

    title: str
    fault: Callable[[Bench], Hows]
    share: float = 1.0
    ends: str | None = "run"


KINDS = {
    "kill": Kind("SIGKILL at a random moment", run_faults.kill),
    "checkpoint": Kind("SIGKILL while a checkpoint is being written", run_faults.kill_in_checkpoint, 0.4),
    "write": Kind("SIGKILL within, before and after each of the run's writes", run_faults.kill_at_write, 2),
    "stop": Kind("SIGTERM or SIGINT at a random moment of training", run_faults.stop, 0.4),
    "pair": Kind("SIGKILL, SIGTERM or SIGINT of one of two processes", run_faults.end_one_of_two, 0.4, "pair"),
    "disk": Kind("full disk, at 4 KiB to all that is written", run_faults.full_disk),
    "read-only": Kind("read-only folder, at the start or on resumption", run_faults.read_only, 0.2),
    "data": Kind("data set, or one of its files, gone or damaged on resumption", run_faults.lost_data),
    "diverge": Kind("weights that grow beyond all numbers", run_faults.diverge, ends=None),
    "last": Kind("damaged last.pt on resumption", run_faults.damaged("last.pt"), 2),
    "best": Kind("damaged best.pt on resumption", run_faults.damaged("best.pt")),
    "config": Kind("damaged config.json on resumption", run_faults.damaged("config.json"), 2),
    "metrics": Kind("damaged metrics.jsonl on resumption", run_faults.damaged("metrics.jsonl")),
    "study-kill": Kind("`compare`: SIGKILL of the command", study_faults.kill_study, 0.1, "study"),
    "study-worker": Kind("`compare`: SIGKILL of a process that trains", study_faults.kill_worker, 0.1, "study"),
    "study-stop": Kind("`compare`: SIGTERM or SIGINT", study_faults.stop_study, 0.1, "study"),
    "study-damage": Kind("`compare`: a damaged file in one run's folder", study_faults.damaged_study, 0.3, "study"),
}


def check_end(bench: Bench, ends: str | None) -> None:
    """Go on with the same command. Raises Lost where that does not end as if nothing had happened."""
    if ends is None:
        return
    if not (bench.runs / ends / "results.json").exists():  # which a study's own folder never holds
        finish(bench, ends)
    for place, whole in bench.whole[ends].items():
        folder = bench.runs / place
        if difference := differs(outcome(folder), whole):
            raise Lost(f"{folder.name} ended otherwise than one left alone: {difference}")


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


def main(arguments: list[str]) -> int:
    args = tyro.cli(Arguments, prog="python -m scripts.checks.inject_faults", args=arguments, description=__doc__)
    kinds = {name: KINDS[name] for name in args.only.split(",")} if args.only else KINDS
    os.environ["OMP_NUM_THREADS"] = "1"
    tqdm.monitor_interval = 0  # a thread would not survive a fork
    torch.set_num_threads(1)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    lost: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), random.Random(args.seed), not args.forked, args.keep)
        prepare(bench, {kind.ends for kind in kinds.values()})
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
