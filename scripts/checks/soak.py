"""`python -m scripts.checks.soak [--hours H] -- COMMAND`: does a long run keep its memory, files and threads?

Starts the command and reads from /proc (Linux) what it and the processes it started hold, until it ends. Leaves a
line a sample in samples.csv, the summary in soak.json and the picture in soak.png. Pages that processes share count
for each of them.
"""

import contextlib
import csv
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from matplotlib.figure import Figure

from dgcnn_ws.engine.folder.checkpoint import write_json
from dgcnn_ws.pictures.plots import save
from dgcnn_ws.proc import count_threads, family, open_files, proc_bytes

FIELDS = ("seconds", "rss_mb", "files", "threads")
SETTLED = 0.1  # of the time: libraries, kernels and the first epoch take their memory before it


@dataclass(frozen=True)
class Arguments:
    hours: float | None = None
    """Ask the command to stop (SIGTERM) after this long. Default: wait until it ends."""
    every: float = 5.0
    """Seconds between two samples."""
    out: Path = Path("runs/soak")
    """Folder for what is measured."""


def sample(pid: int) -> tuple[float, int, int]:
    """Return MB of resident memory, open files and threads of a process and all that it started."""
    rss, files, threads = 0, 0, 0
    for member in family(pid):
        with contextlib.suppress(OSError):  # one that has ended
            rss += proc_bytes(f"{member}/status", "VmRSS") or 0
            files += len(open_files(member))
            threads += count_threads(member)
    return rss / 1e6, files, threads


def watch(command: list[str], args: Arguments) -> tuple[np.ndarray, int]:
    """Run the command and return the samples (n, 4), as FIELDS, and its exit code."""
    rows: list[tuple[float, float, int, int]] = []
    begun = time.monotonic()
    with open(args.out / "samples.csv", "w", newline="") as file, subprocess.Popen(command) as process:
        writer = csv.writer(file)
        writer.writerow(FIELDS)
        try:
            while process.poll() is None:
                seconds = time.monotonic() - begun
                if args.hours is not None and seconds >= 3600 * args.hours:
                    process.terminate()
                    break
                rss, files, threads = sample(process.pid)
                if rss:  # else it ended meanwhile
                    rows.append((seconds, rss, files, threads))
                    writer.writerow([f"{seconds:.1f}", f"{rss:.3f}", files, threads])
                    file.flush()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(args.every)
        except KeyboardInterrupt:  # the command got it too, and saves its place
            pass
        return np.array(rows, float).reshape(-1, len(FIELDS)), process.wait()


def summarize(samples: np.ndarray) -> dict[str, Any]:
    """Return how the figures of samples (n, 4) moved: a line through the settled part, and its ends."""
    seconds, rss, files, threads = samples[samples[:, 0] >= SETTLED * samples[-1, 0]].T
    tenth = max(1, len(seconds) // 10)
    return {
        "hours": samples[-1, 0] / 3600,
        "samples": len(samples),
        "settled_after_hours": seconds[0] / 3600,
        "mb_per_hour": float(np.polyfit(seconds / 3600, rss, 1)[0]) if len(seconds) > 1 else 0.0,
        "first_tenth_mb": rss[:tenth].mean(),
        "last_tenth_mb": rss[-tenth:].mean(),
        "most_mb": samples[:, 1].max(),
        "files": [int(files.min()), int(files.max())],
        "threads": [int(threads.min()), int(threads.max())],
    }


def draw(samples: np.ndarray, path: Path) -> None:
    """Draw memory, open files and threads over time into a picture."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    memory, others = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    hours = samples[:, 0] / 3600
    memory.plot(hours, samples[:, 1], linewidth=0.8)
    memory.axvspan(0, SETTLED * hours[-1], color="0.9")
    memory.set(ylabel="resident memory (MB)", ylim=(0, None))
    others.plot(hours, samples[:, 2], label="open files")
    others.plot(hours, samples[:, 3], label="threads")
    others.set(xlabel="hours", ylim=(0, 1.6 * samples[:, 2:].max()))  # room for the legend
    others.legend(fontsize="small", loc="upper right", ncols=2)
    save(figure, path)


def main(arguments: list[str]) -> int:
    """Return 0, or the command's exit code where it failed (asked to stop, it should end with 143)."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, command = arguments[:at], arguments[at + 1 :]
    args = tyro.cli(Arguments, prog="python -m scripts.checks.soak", args=own, description=__doc__)
    if not command:
        print("error: name the command to watch after --, as in: -- python main.py train", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    samples, code = watch(command, args)
    if not len(samples):
        print(f"error: {shlex.join(command)} ended with {code} before a sample was taken.", file=sys.stderr)
        return 2
    found = summarize(samples)
    write_json(args.out / "soak.json", {"command": shlex.join(command), "exit_code": code, **found})
    draw(samples, args.out / "soak.png")
    print(
        "| hours | samples | MB per hour | first tenth, MB | last tenth, MB | most, MB | files | threads | exit code |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| {found['hours']:.2f} | {found['samples']} | {found['mb_per_hour']:+.2f} | {found['first_tenth_mb']:.1f} | "
        f"{found['last_tenth_mb']:.1f} | {found['most_mb']:.1f} | {'-'.join(map(str, found['files']))} | "
        f"{'-'.join(map(str, found['threads']))} | {code} |"
    )
    return 0 if code in (0, 128 + signal.SIGTERM) else code if code > 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
