"""What the fuzzers share: hostile inputs are read in a process of its own, and what came of each is counted.

The process is forked from this one, in which everything is imported, so that a crash, a hang, memory and executed code
are seen, whatever they do to it. Right are two outcomes: what is read is as it should be, or it is refused in one
sentence of InputError. The inputs follow from the seed.
"""

import multiprocessing
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dgcnn_ws.engine.machine.devices import peak_memory_bytes, reset_peak_memory
from dgcnn_ws.errors import InputError
from dgcnn_ws.proc import proc_bytes
from dgcnn_ws.text_table import markdown

READ, REFUSED = "read", "refused with InputError"
CPU = torch.device("cpu")
WAIT = 5  # times the processor time that a read may take: a process that sleeps for so long hangs
HEADINGS = ["what", "inputs", "read", "refused", "wrong", "longest (ms)", "most memory above idle (MiB)"]

Use = Callable[[bytes, Path], None]


@dataclass(frozen=True)
class Arguments:
    inputs: int = 10_000
    """Inputs of each kind."""
    seed: int = 0
    """Decides the inputs, with their number."""
    seconds: float = 10.0
    """What a single read may take, in seconds of the processor."""
    megabytes: int = 64
    """MiB of memory that it may take above the process it starts from."""
    keep: Path = Path("runs/fuzz")
    """Folder for the inputs that went wrong."""


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        make: the input of a seed and a number.
        use: what the program does with an input, in an empty folder; asserts that what is accepted is right.
        is_forbidden: whether an audit event, in an input's folder, is none of the reader's business.
        valid: inputs that are read first, so that what is loaded and compiled once is there.
        growth: bytes of memory that each byte of an input may take beside `Arguments.megabytes`.
    """

    make: Callable[[int, int], bytes]
    use: Use
    is_forbidden: Callable[[str, tuple[Any, ...], Path], bool]
    valid: Sequence[bytes] = ()
    growth: int = 0


def read(target: Target, content: bytes, folder: Path, seen: list[str]) -> str:
    """Return what became of one input, in a folder made for it; `seen` collects forbidden events meanwhile."""
    folder.mkdir()
    seen.clear()
    try:
        target.use(content, folder)
        outcome = READ
    except InputError as error:
        outcome = REFUSED if "\n" not in str(error) else "MORE THAN ONE LINE"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"[:200]
    touched = list(seen)
    shutil.rmtree(folder)
    return f"TOUCHED {touched}" if touched else outcome


def read_all(target: Target, numbers: range, args: Arguments, scratch: Path, results: Connection) -> None:
    """In a process of its own: read inputs, and send outcome, seconds and bytes of memory of each."""
    torch.set_num_threads(1)
    seen: list[str] = []
    folder = scratch / "input"

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if target.is_forbidden(event, details, folder):
            seen.append(f"{event} {details[0] if details else ''}")

    sys.addaudithook(watch)
    for content in target.valid:
        read(target, content, folder, seen)
    # What can be limited is address space; that is far above the bound on memory, which is measured.
    limit = (proc_bytes("self/status", "VmSize") or 0) + (4 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in numbers:
        content = target.make(args.seed, number)
        reset_peak_memory(CPU)
        before, begun = proc_bytes("self/status", "VmRSS") or 0, time.perf_counter()
        signal.setitimer(signal.ITIMER_PROF, args.seconds)  # ends the process, in whatever loop it is
        outcome = read(target, content, folder, seen)
        signal.setitimer(signal.ITIMER_PROF, 0)
        taken = peak_memory_bytes(CPU) - before
        if taken > (args.megabytes << 20) + target.growth * len(content):
            outcome = f"TOOK {taken >> 20} MiB for {len(content)} bytes"
        results.send((outcome, time.perf_counter() - begun, taken))


def read_each(target: Target, args: Arguments, scratch: Path) -> Iterator[tuple[str, float, int]]:
    """Yield what became of every input; a process that dies or hangs is replaced for the inputs that are left."""
    fork = multiprocessing.get_context("fork")  # everything is imported already
    done = 0
    while done < args.inputs:
        ours, theirs = fork.Pipe(duplex=False)
        reader = fork.Process(target=read_all, args=(target, range(done, args.inputs), args, scratch, theirs))
        reader.start()
        theirs.close()
        wait = WAIT * args.seconds * (1 + len(target.valid))  # the first answer comes after the valid inputs
        while done < args.inputs:
            done += 1
            try:
                if ours.poll(wait):
                    yield ours.recv()
                    wait = WAIT * args.seconds
                    continue
                yield "HUNG", args.seconds, 0
            except EOFError:
                reader.join()
                killed = reader.exitcode == -signal.SIGPROF
                yield "HUNG" if killed else f"DIED with exit code {reader.exitcode}", args.seconds * killed, 0
            break
        reader.kill()
        reader.join()
        shutil.rmtree(scratch / "input", ignore_errors=True)


def fuzz(name: str, target: Target, args: Arguments) -> tuple[list[str], int]:
    """Feed one target; keep what went wrong. Return its row of the table, and how many went wrong."""
    outcomes: Counter[str] = Counter()
    slowest, most = 0.0, 0
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    results = tqdm(read_each(target, args, scratch), total=args.inputs, desc=name, disable=None, leave=False)
    for number, (outcome, seconds, taken) in enumerate(results):
        outcomes[outcome if outcome in (READ, REFUSED) else "wrong"] += 1
        slowest, most = max(slowest, seconds), max(most, taken)
        if outcome not in (READ, REFUSED):
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / f"{name}-{args.seed}-{number}").write_bytes(target.make(args.seed, number))
            print(f"{name} {number}: {outcome}", file=sys.stderr)
    shutil.rmtree(scratch)
    counts = [f"{count:,}" for count in (args.inputs, outcomes[READ], outcomes[REFUSED], outcomes["wrong"])]
    return [name, *counts, f"{1e3 * slowest:.0f}", f"{most >> 20}"], outcomes["wrong"]


def fuzz_all(targets: Mapping[str, Callable[[], Target]], names: str, args: Arguments) -> int:
    """Feed the targets of these names, with commas between; print a table. Return an exit code, 1 if one was wrong."""
    torch.set_num_threads(1)  # a pool of threads would not survive the fork
    rows, wrong = [HEADINGS], 0
    for name in names.split(","):
        row, count = fuzz(name, targets[name](), args)
        rows.append(row)
        wrong += count
    print("\n".join(markdown(rows)))
    return int(wrong > 0)
