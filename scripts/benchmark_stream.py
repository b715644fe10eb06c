"""`python -m scripts.benchmark_stream`: clouds per second from files (--stream) against clouds in memory.

The two take turns in one process: first the loader alone, through an epoch; then training, some steps with each, the
reader started anew for every turn. Before each of its turns the files are put out of the system's cache, as far as the
system lets go of them. Printed are the medians over the rounds and the median of the rounds' ratios.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
import tyro

from dgcnn_ws.datasets import StreamedClouds
from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.engine.devices import describe_environment, keep_freed_memory
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.throughput import write_random_clouds
from dgcnn_ws.engine.training import Run


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


def rate(loader: Loader, steps: int, use: Callable[[torch.Tensor, torch.Tensor], None]) -> float:
    """Return the clouds per second of the first `steps` batches of an epoch."""
    if isinstance(loader.dataset, StreamedClouds):
        forget(loader.dataset)
    begun = time.perf_counter()
    for _, (points, targets) in zip(range(steps), loader.epoch(0), strict=False):
        use(points, targets)
    if loader.device.type == "cuda":
        torch.cuda.synchronize(loader.device)
    return steps * loader.batch_size / (time.perf_counter() - begun)


def compare(name: str, rounds: int, one: Callable[[], float], other: Callable[[], float]) -> None:
    rates = [(one(), other()) for _ in range(rounds)]
    memory, streamed = (median(side) for side in zip(*rates, strict=True))
    ratios = [theirs / ours for ours, theirs in rates]
    print(
        f"{name:<14}{memory:>12,.1f}{streamed:>12,.1f}    {median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f})",
        flush=True,
    )


def main(arguments: list[str]) -> None:
    args = tyro.cli(Arguments, prog="python -m scripts.benchmark_stream", args=arguments, description=__doc__)
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
            f"{'clouds/s':<14}{'in memory':>12}{'streamed':>12}    ratio of a round"
        )
        epoch = len(run.loader)
        loaders = run.loader, streamed
        alone = [lambda loader=loader: rate(loader, epoch, lambda *_: None) for loader in loaders]
        compare("loader alone", args.rounds, *alone)
        run.model.train()
        run._optimizer_step(*next(iter(run.loader)))  # compiles
        training = [lambda loader=loader: rate(loader, args.steps, run._optimizer_step) for loader in loaders]
        compare("training", args.rounds, *training)


if __name__ == "__main__":
    main(sys.argv[1:])
