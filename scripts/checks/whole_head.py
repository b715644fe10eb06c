"""What `--head-norm bn_whole` costs: processor time of an optimizer step, beside the `est` head's.

python -m scripts.checks.whole_head --data-root PATH [--dataset modelnet40] [--num-points 1024] [--micro-batches 1,4,32]
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from dgcnn_ws.engine.machine.allocator import keep_freed_memory
from dgcnn_ws.engine.recipe import HeadNorm, Recipe, complete
from dgcnn_ws.engine.training import Run
from dgcnn_ws.text_table import markdown

HEADS: tuple[HeadNorm, ...] = ("est", "bn_whole")
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="modelnet40")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--num-points", type=int, default=1024)
    parser.add_argument("--micro-batches", default="1,4,32")
    parser.add_argument("--precision", default="bf16")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    sizes = [int(size) for size in args.micro_batches.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[tuple[HeadNorm, int], Run] = {}
        for head, size in [(head, size) for head in HEADS for size in sizes]:
            given = {"dataset": args.dataset, "data_root": args.data_root, "num_points": args.num_points}
            recipe = complete(Recipe(**given, head_norm=head, micro_batch=size, precision=args.precision))
            runs[head, size] = Run(recipe, Path(folder) / f"{head}-{size}", quiet=True)
            runs[head, size].model.train()
        batch = next(next(iter(runs.values())).loader.epoch(0))
        times: dict[tuple[HeadNorm, int], list[float]] = {kind: [] for kind in runs}
        for _ in range(1 + ROUNDS):  # the first warms up
            for kind, run in runs.items():
                start = time.process_time()
                run.optimizer_step(*batch)
                times[kind].append(time.process_time() - start)
    of = {kind: median(seconds[1:]) for kind, seconds in times.items()}
    rows = [["micro-batch", *(f"{head}, s" for head in HEADS), "ratio"]]
    rows += [
        [f"{n}", *(f"{of[head, n]:.2f}" for head in HEADS), f"{of['bn_whole', n] / of['est', n]:.2f}"] for n in sizes
    ]
    print("\n".join(markdown(rows)))


if __name__ == "__main__":
    main()
