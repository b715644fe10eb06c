"""`python -m scripts.checks.communication`: what the processes of a run send each other in one optimizer step, counted.

On this machine's CPU. The bytes depend on the network alone: neither on the clouds, nor on the batch, nor (but for
what is gathered, to which each process adds a row) on the number of processes. Batch statistics that are synchronised
travel once a micro-batch.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from dgcnn_ws.engine.parallel.processes import is_first
from dgcnn_ws.engine.recipe import HeadNorm, Norm, PresetName, Recipe, complete
from dgcnn_ws.engine.training import Run
from dgcnn_ws.text_table import markdown
from scripts.checks.throughput import write_random_clouds
from scripts.checks.traffic import Collectives

KINDS: tuple[tuple[Norm, HeadNorm, bool], ...] = (
    ("gn", "est", False),
    ("ws_gn", "est", False),
    ("ws_bcn", "est", False),
    ("ws_gn", "bn_whole", False),
    ("bn", "bn", False),
    ("bn", "bn", True),
)
WARM_UP = 2  # steps in which the gradients' buckets are laid out


@dataclass(frozen=True)
class Arguments:
    processes: int = 2
    """Processes to train in."""
    micro_batches: int = 1
    """Micro-batches of each process in a step."""
    preset: PresetName = "dgcnn"
    """Network."""


def count(args: Arguments, norm: Norm, head_norm: HeadNorm, sync_bn: bool, data: Path) -> list[str]:
    """Return a row of the table."""
    recipe = Recipe(
        dataset="modelnet40",
        data_root=data,
        preset=args.preset,
        norm=norm,
        head_norm=head_norm,
        sync_bn=sync_bn,
        batch_size=2 * args.micro_batches * args.processes,
        micro_batch=2,
        num_points=32,
        k=4,
        device="cpu",
        devices=args.processes,
        nodes=1,
    )
    run = Run(complete(recipe), data / "run", quiet=True)
    run.model.train()
    points, labels = next(run.loader.epoch(0))
    for _ in range(WARM_UP):
        run.optimizer_step(points, labels)
    with Collectives() as sent:
        run.optimizer_step(points, labels)
    gradients = sum(parameter.nbytes for parameter in run.model.parameters())
    name = f"`{norm}`, {head_norm}{', --sync-bn' if sync_bn else ''}"
    reduced, gathered = sent.bytes["allreduce_"], sent.bytes["allgather_"]
    return [name, f"{sent.calls.total()}", f"{gradients:,}", f"{reduced - gradients:,}", f"{gathered:,}"]


def main() -> None:
    args = tyro.cli(Arguments, description=__doc__)
    rows = [["norm, head", "collectives", "bytes of gradients", "other bytes summed up", "bytes gathered"]]
    with tempfile.TemporaryDirectory() as folder:
        write_random_clouds(Path(folder), 40 * args.micro_batches * args.processes, 40, 32)
        for norm, head_norm, sync_bn in KINDS:
            rows.append(count(args, norm, head_norm, sync_bn, Path(folder)))
    if is_first():
        print("\n".join(markdown(rows)))


if __name__ == "__main__":
    main()
