"""`export CHECKPOINT OUT`: write a network as ONNX (.onnx) or torch.export's format (.pt2), checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from dgcnn_ws.cli import arguments as parser

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """best.pt or last.pt of a run."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """File to write: .onnx, or .pt2 for torch.export.load."""


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "export", arguments, __doc__)
    import torch

    from dgcnn_ws.engine.folder.checkpoint import load_checkpoint, restore_frame, restore_model, restore_temperature
    from dgcnn_ws.inference.export import export, random_clouds
    from dgcnn_ws.inference.metadata import describe

    content = load_checkpoint(args.checkpoint)
    model, recipe, class_names = restore_model(args.checkpoint, content)
    frame, temperature = restore_frame(args.checkpoint, content), restore_temperature(args.checkpoint, content)
    metadata = describe(recipe, frame, class_names, content.get("part_names", []), temperature)

    def inputs(batch: int, num_points: int) -> "tuple[Tensor, ...]":
        categories = (torch.randint(len(class_names), (batch,)),) if recipe.task == "segment" else ()
        return *random_clouds(batch, num_points, frame.width), *categories

    few = max(recipe.k, recipe.num_points // 2)
    sizes = ((1, recipe.num_points), (8, few), (3, recipe.num_points + 100))
    torch.manual_seed(0)
    checks = export(model, args.out, inputs=inputs, sizes=sizes, metadata=metadata)
    runtime = "onnxruntime" if args.out.suffix == ".onnx" else "torch.export"
    for check in checks:
        print(
            f"{check.batch} clouds of {check.num_points} points: {runtime} differs from torch by {check.median:.1e} in "
            f"the median and {check.largest:.1e} at most, of the largest logit"
        )
    print(f"wrote {args.out}: any number of clouds, of at least {recipe.k} points")
