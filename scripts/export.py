"""`python main.py export CHECKPOINT OUT`: write a network as ONNX (.onnx) or torch.export's format (.pt2), checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from dgcnn_ws import __version__
from dgcnn_ws.engine.checkpoint import restore_model
from dgcnn_ws.engine.export import export


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional]
    """best.pt or last.pt of a run."""
    out: Annotated[Path, tyro.conf.Positional]
    """File to write: .onnx, or .pt2 for torch.export.load."""


def main(arguments: list[str]) -> None:
    args = tyro.cli(Arguments, prog="main.py export", args=arguments, description=__doc__)
    model, recipe, class_names = restore_model(args.checkpoint)
    metadata = {
        "class_names": class_names,
        "input": "points (batch, 3, points), y up, zero mean, the farthest point at distance 1",
        "num_points": recipe.num_points,
        "k": recipe.k,
        "norm": recipe.norm,
        "made_by": f"dgcnn_ws {__version__}",
    }
    few = max(recipe.k, recipe.num_points // 2)
    sizes = ((1, recipe.num_points), (8, few), (3, recipe.num_points + 100))
    torch.manual_seed(0)
    checks = export(model, args.out, sizes=sizes, metadata=metadata)
    runtime = "onnxruntime" if args.out.suffix == ".onnx" else "torch.export"
    for check in checks:
        print(
            f"{check.batch} clouds of {check.num_points} points: {runtime} differs from torch by {check.median:.1e} "
            f"(median cloud), at most {check.largest:.1e}, of the largest logit"
        )
    print(f"wrote {args.out}: any number of clouds, of at least {recipe.k} points")
