"""`python -m scripts.checks.benchmark_stream`: clouds from files (--stream) against clouds in memory.

The two take turns in one process: first the loader alone, through an epoch; then training, some steps with each, the
reader started anew for every turn. Before each of its turns the files are put out of the system's cache, as far as the
system lets go of them. Printed are the medians over the rounds and the median of the rounds' ratios.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import torch
import tyro

from dgcnn_ws.datasets import StreamedClouds
from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.engine.machine.allocator import keep_freed_memory
from dgcnn_ws.engine.machine.devices import describe_environment
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.training import Run
from scripts.checks.throughput import write_random_clouds


@dataclass(frozen=True)
class Arguments:
    dataset: str = "modelnet10"
    """modelnet10 | modelnet40 | the path of a folder; see --clouds."""
    data_root: Path = Path("data")
    """Folder that holds the data set."""
    clouds: int | None = None
    """Measure on this many random clouds instead, written into a temporary folder."""
    num_points: int = 1024
    """Points of a cloud."""
    batch_size: int = 32
    """Clouds in a step."""
    buffer: int = 256
    """As --stream-buffer of train, in MB."""
    steps: int = 10
    """Training steps in a turn."""
    rounds: int = 3
    """Turns of each."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N."""


def forget(clouds: StreamedClouds) -> None:
    """Ask the system to let go of the files' contents."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        for path in clouds.files:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(loader: Loader, steps: int, use: Callable[[torch.Tensor, torch.Tensor], None]) -> tuple[float, float]:
    """Return clouds per second, and milliseconds of processor time per cloud, over the first batches of an epoch."""
    if isinstance(loader.dataset, StreamedClouds):
        forget(loader.dataset)
    begun, processor = time.perf_counter(), time.process_time()
    for _, (points, targets) in zip(range(steps), loader.epoch(0), strict=False):
        use(points, targets)
    if loader.device.type == "cuda":
        torch.cuda.synchronize(loader.device)
    clouds = steps * loader.batch_size
    return clouds / (time.perf_counter() - begun), 1000 * (time.process_time() - processor) / clouds


def compare(name: str, rounds: int, turns: Sequence[Callable[[], tuple[float, float]]]) -> None:
    """Print what the turns of in memory and streamed took; whose turn is first alternates."""
    found: list[list[tuple[float, float]]] = []
    for number in range(rounds):
        taken = [turn() for turn in (turns if number % 2 == 0 else turns[::-1])]
        found.append(taken if number % 2 == 0 else taken[::-1])
    for column, what in enumerate(("clouds/s", "processor ms per cloud")):
        memory, streamed = (median(turn[side][column] for turn in found) for side in (0, 1))
        ratios = [turn[1][column] / turn[0][column] for turn in found]
        spread = f"{median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f})"
        print(f"{f'{name}, {what}':<38}{memory:>14,.3f}{streamed:>14,.3f}    {spread}", flush=True)


def main(arguments: list[str]) -> None:
    args = tyro.cli(Arguments, prog="python -m scripts.checks.benchmark_stream", args=arguments, description=__doc__)
    keep_freed_memory()
    folder = tempfile.TemporaryDirectory() if args.clouds else nullcontext(args.data_root)
    with folder as root, tempfile.TemporaryDirectory() as runs:
        if args.clouds:
            write_random_clouds(Path(root), args.clouds, 40, args.num_points)
        recipe = complete(
            Recipe(
                dataset="modelnet40" if args.clouds else args.dataset,
                data_root=Path(root),
                num_points=args.num_points,
                batch_size=args.batch_size,
                device=args.device,
                select="test",  # all of train
            )
        )
        run = Run(recipe, Path(runs, "memory"), quiet=True)
        streamed = Run(replace(recipe, stream=True, stream_buffer=args.buffer), Path(runs, "stream"), quiet=True).loader
        environment = describe_environment(run.device)
        size = len(run.train_set) * args.num_points * 12 / 1e6
        print(
            f"{environment['hardware']}, {environment['threads']} threads, torch {environment['torch']}: "
            f"{len(run.train_set):,} clouds of {args.num_points:,} points, {size:,.0f} MB, "
            f"batch {args.batch_size}, buffer {args.buffer} MB\n\n"
            f"{'':<38}{'in memory':>14}{'streamed':>14}    ratio of a round"
        )
        epoch = len(run.loader)
        loaders = run.loader, streamed
        alone = [partial(measure, loader, epoch, lambda *_: None) for loader in loaders]
        compare("loader alone", args.rounds, alone)
        run.model.train()
        run.optimizer_step(*next(iter(run.loader)))  # compiles
        training = [partial(measure, loader, args.steps, run.optimizer_step) for loader in loaders]
        compare("training", args.rounds, training)


if __name__ == "__main__":
    main(sys.argv[1:])
