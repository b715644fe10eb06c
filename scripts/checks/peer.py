"""`python -m scripts.checks.peer FOLDER`: time a public DGCNN beside this project's, in turns in one process.

FOLDER holds the model.py of https://github.com/antao97/dgcnn.pytorch (that file alone is needed; a clone brings 50 MB
of weights along), or another one with its `DGCNN_cls`. What it asks of a CUDA device is given it on the CPU. A training
step is forward pass, cross entropy, backward pass and fused Adam; inference is a forward pass. Milliseconds a cloud,
median and range over the rounds; ratios are taken round by round. The floor is the benchmark's, in the row's precision.
"""

import sys
import time
from argparse import Namespace
from dataclasses import dataclass, replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import nn
from torch.nn import functional as F

from dgcnn_ws.benchmark import benchmark
from dgcnn_ws.benchmark.benchmark import Setting, Step, Times
from dgcnn_ws.engine.machine.devices import describe_environment
from dgcnn_ws.errors import InputError
from dgcnn_ws.ops.product import multiplies_bfloat16


class TorchOnCpu:
    """The torch module to a file that names its device itself: every device is the CPU."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def device(*_: Any) -> torch.device:
        return torch.device("cpu")


@dataclass(frozen=True)
class Arguments:
    folder: Annotated[Path, tyro.conf.Positional]
    """Folder with the public model.py."""
    batch_size: int = 16
    """Clouds in a step."""
    num_points: int = 1024
    """Points of a cloud."""
    k: int = 20
    """Neighbours of a point, itself included."""
    emb_dims: int = 1024
    """Channels before pooling."""
    rounds: int = 5
    """Turns that the implementations take."""
    threads: int = 2
    """CPU threads."""
    processor_time: bool = False
    """Count the processor's seconds in place of the clock's: with --threads 1, what a busy machine disturbs least."""


def public_network(args: Arguments) -> nn.Module:
    """Return the folder's network. Raises InputError where its model.py has none."""
    path = args.folder / "model.py"
    spec = spec_from_file_location("public_dgcnn", path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise InputError(f"{path} is no file. Put the model.py of https://github.com/antao97/dgcnn.pytorch there.")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "DGCNN_cls"):
        raise InputError(f"{path} defines no DGCNN_cls.")
    vars(module)["torch"] = TorchOnCpu()
    return module.DGCNN_cls(Namespace(k=args.k, emb_dims=args.emb_dims, dropout=0.5))


def steps_of(args: Arguments, mode: str) -> tuple[dict[str, Step], Setting]:
    """Return the step of each implementation, and the setting of ours."""
    setting = Setting(mode, "ws_gn", args.num_points, args.batch_size, args.k, args.emb_dims, threads=args.threads)
    points = F.normalize(torch.randn(args.batch_size, 3, args.num_points), dim=1)
    make = benchmark.training_step if mode == "train" else benchmark.inference_step
    steps = {"public": make(setting, public_network(args), points)}
    for norm in ("bn", "ws_gn"):
        steps[f"{norm}, 32"] = benchmark.make_step(replace(setting, norm=norm), "fused")
    steps["ws_gn, bf16"] = benchmark.make_step(half := replace(setting, precision="bf16"), "fused")
    return steps, half


def floors(setting: Setting, products: Times) -> dict[str, list[float]]:
    """Return each round's seconds of a cloud's unavoidable arithmetic, by precision."""
    exact = {name: times for name, times in products.items() if name.startswith("float32")}
    return {
        "32": benchmark.floor_seconds(replace(setting, precision="32"), exact),
        "bf16": benchmark.floor_seconds(setting, products),
    }


def table(args: Arguments, mode: str, times: Times, floor_of: dict[str, list[float]]) -> str:
    lines = [f"{mode:<12}  {'ms per cloud':>24}  {'times the public speed':>24}  floor (ms)  x floor"]
    for name, seconds in times.items():
        floor = floor_of["bf16" if name.endswith("bf16") else "32"]
        ms = benchmark.spread([1000 * s / args.batch_size for s in seconds])
        ratio = benchmark.spread([first / s for first, s in zip(times["public"], seconds, strict=True)])
        over = benchmark.spread([s / args.batch_size / f for s, f in zip(seconds, floor, strict=True)])
        texts = (f"{v['median']:.1f} ({v['min']:.1f} - {v['max']:.1f})" for v in (ms, ratio))
        least = 1000 * benchmark.spread(floor)["median"]
        lines.append(
            f"{name:<12}  " + "  ".join(f"{text:>24}" for text in texts) + f"  {least:>10.1f}  {over['median']:>7.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    args = tyro.cli(Arguments, prog="python -m scripts.checks.peer", description=__doc__)
    torch.set_num_threads(args.threads)
    try:
        environment = describe_environment(torch.device("cpu"))
        half = "with" if multiplies_bfloat16() else "without"
        print(
            f"{environment['hardware']}, {args.threads} threads, torch {environment['torch']}, {half} bfloat16 products"
        )
        clocks = {False: time.perf_counter, True: time.process_time}
        print(f"batch {args.batch_size}, {args.num_points} points, k {args.k}, emb {args.emb_dims}\n", flush=True)
        for mode in ("train", "inference"):
            steps, setting = steps_of(args, mode)
            every, clock = steps | benchmark.product_steps(setting), clocks[args.processor_time]
            times = benchmark.time_rounds(setting, every, args.rounds, 1e9, clock)
            products = {name: times.pop(name) for name in list(times) if name not in steps}
            print(table(args, mode, times, floors(setting, products)), flush=True)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    from dgcnn_ws.engine.machine.allocator import keep_freed_memory

    keep_freed_memory()
    main()
