"""`python -m scripts.checks.slurm_cluster.efficiency`: what talking costs on slow links, measured.

1, 2 and 3 machines of `hosts`, one process and one thread each, take optimizer steps of today's DGCNN on 48 clouds of
256 points together. Linux, as root, and while no cluster of `slurm_cluster` runs: the machines are the same.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch.distributed as dist
import tyro
from torch import nn

from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.training import Run
from dgcnn_ws.models import DGCNN
from dgcnn_ws.text_table import markdown
from scripts.checks.inject_faults.bench import ROOT
from scripts.checks.slurm_cluster import hosts
from scripts.checks.throughput import write_random_clouds

LINKS = {  # bits/s, and seconds from machine to machine
    "none": (None, 0.0),
    "1 Gbit/s": (1e9, 0.0),
    "1 Gbit/s, 1 ms": (1e9, 1e-3),
    "100 Mbit/s": (1e8, 0.0),
    "100 Mbit/s, 1 ms": (1e8, 1e-3),
}
BATCH, POINTS = 48, 256  # clouds, and points of each
PORT = "29700"
BYTES = 7.234e6  # of the gradients of `ws_gn`, which travel in one collective
WARM_UP = 2  # steps


@dataclass(frozen=True)
class Arguments:
    steps: int = 7
    """Steps of each kind, of which the median is told."""
    micro_batch: int = 8
    """Clouds in a forward pass."""
    measure: Path | None = None
    """Be one of the machines' processes, with the clouds in this folder (what the script gives itself)."""


def measure(args: Arguments, folder: Path) -> None:
    """Take steps in this process among the others of its environment; the first prints their seconds."""
    nodes = int(os.environ["NODES"])
    recipe = Recipe(
        dataset="modelnet40",
        data_root=folder,
        device="cpu",
        head_norm="est",
        num_points=POINTS,
        batch_size=BATCH,
        micro_batch=args.micro_batch,
        devices=1,
        nodes=nodes,
    )
    run = Run(complete(recipe), folder / "run", quiet=True)
    run.model.train()
    points, labels = next(run.loader.epoch(0))
    head_done = 0.0

    def note(*_: object) -> None:
        nonlocal head_done
        head_done = time.perf_counter()

    # When this one's gradient is there, those of all that follows it are: nineteen bytes of twenty.
    assert isinstance(run.model, DGCNN)
    run.model.global_feature.conv.weight.register_post_accumulate_grad_hook(note)
    add_gradients = run.processes.add_gradients
    seconds: dict[str, list[float]] = {"step": [], "talk": [], "hidden": []}

    def timed_add(model: nn.Module) -> None:
        begun = time.perf_counter()
        seconds["hidden"].append(begun - head_done)
        if nodes > 1:
            dist.barrier()  # whoever is slower is not the network's fault
        begun = time.perf_counter()
        add_gradients(model)
        seconds["talk"].append(time.perf_counter() - begun)

    run.processes.add_gradients = timed_add  # type: ignore[method-assign]
    for _ in range(WARM_UP + args.steps):
        if nodes > 1:
            dist.barrier()
        begun = time.perf_counter()
        run.optimizer_step(points, labels)
        run.progress.step += 1
        seconds["step"].append(time.perf_counter() - begun)
    if run.processes.first:
        print(json.dumps({name: statistics.median(values[WARM_UP:]) for name, values in seconds.items()}))


def ask(args: Arguments, nodes: int, folder: Path) -> dict[str, float]:
    """Let so many machines take steps; return the seconds of one, of its talk and of what could hide that."""
    command = [sys.executable, "-m", "scripts.checks.slurm_cluster.efficiency", "--measure", str(folder)]
    command += ["--steps", str(args.steps), "--micro-batch", str(args.micro_batch)]
    told = os.environ | {"MASTER_ADDR": "node1", "MASTER_PORT": PORT, "NODES": str(nodes), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            hosts.on(name, command), cwd=ROOT, env=told | {"NODE_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank, name in enumerate(hosts.names(nodes)[1:])
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("error: a process failed; what it said is above.")
    return json.loads(outputs[0])


def main() -> None:
    args = tyro.cli(Arguments, description=__doc__)
    if args.measure is not None:
        return measure(args, args.measure)
    hosts.require("ip", "unshare")
    rows = [["link", "hosts", "micro-batch", "s a step", "s of talk", "computed", "could be hidden"]]
    with tempfile.TemporaryDirectory() as folder:
        write_random_clouds(Path(folder), 2 * BATCH, 40, POINTS)
        for link, (rate, delay) in LINKS.items():
            hosts.remove()
            hosts.make(3, rate and rate / 8, delay / 2)  # two cables from machine to machine
            try:
                for nodes in (1, 2, 3) if rate is None else (2, 3):
                    found = ask(args, nodes, Path(folder))
                    moved = 2 * (1 - 1 / nodes) * BYTES
                    talk = delay + (moved * 8 / rate if rate else 0)
                    seconds = found["step"], found["talk"], talk, min(found["hidden"], found["talk"])
                    rows.append([link, f"{nodes}", f"{args.micro_batch}", *(f"{second:.3f}" for second in seconds)])
                    print(rows[-1], file=sys.stderr, flush=True)
            finally:
                hosts.remove()
    print("\n".join(markdown(rows)))


if __name__ == "__main__":
    main()
