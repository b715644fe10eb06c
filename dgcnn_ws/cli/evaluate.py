"""`evaluate CHECKPOINT`: score a checkpoint; everything but where to look comes from the checkpoint."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.cli.arguments import check_picture
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import check_folder_of
from dgcnn_ws.text_table import aligned

if TYPE_CHECKING:
    from dgcnn_ws.engine.evaluation import Scores


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional]
    """best.pt or last.pt of a run."""
    data_root: Path | None = None
    """Folder that holds the data set. Default: where it was at training."""
    split: Literal["test", "val", "train"] = "test"
    """What to score; train is without val."""
    votes: int = 1
    """Predictions averaged: of the cloud itself and of votes - 1 randomly scaled copies."""
    batch_size: int = 16
    """Clouds at a time; does not change the result."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N."""
    stream: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Read clouds from the files as they are used, for splits that memory does not hold."""
    json: Path | None = None
    """Write the scores to this file."""
    plot: Path | None = None
    """Draw the confusion matrix into this picture (.png, .pdf, .svg)."""


def report(scores: "Scores") -> str:
    """Return the per-class table and the totals as text."""
    from dgcnn_ws.engine.segmentation import PartScores

    what, of = ("part", "points") if isinstance(scores, PartScores) else ("class", "clouds")
    rows = [[what, of, "correct", "accuracy", "most often taken for"]]
    for i, (name, accuracy) in enumerate(scores.per_class.items()):
        row = scores.confusion[i]
        wrong = max((j for j in range(len(row)) if j != i), key=row.__getitem__, default=i)
        mistake = f"{list(scores.per_class)[wrong]} ({row[wrong]})" if row[wrong] and wrong != i else ""
        rows.append([name, f"{sum(row)}", f"{row[i]}", "-" if accuracy is None else f"{accuracy:.1%}", mistake])
    lines = [
        *aligned(rows, "<>>><"),
        "",
        f"overall accuracy {scores.overall_accuracy:.2%}, mean class accuracy {scores.mean_class_accuracy:.2%}, "
        f"loss {scores.loss:.3f}",
    ]
    if isinstance(scores, PartScores):
        mious = [[name, f"{miou:.1%}"] for name, miou in scores.per_category.items() if miou is not None]
        lines += aligned(mious, "<>")
        lines.append(f"instance mIoU {scores.instance_miou:.2%}, class mIoU {scores.class_miou:.2%}")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "evaluate", arguments, __doc__)
    if args.votes < 1 or args.batch_size < 1:
        raise InputError(f"--votes {args.votes} and --batch-size {args.batch_size} must be at least 1.")
    check_picture("--plot", args.plot)
    check_folder_of(args.json, args.plot)
    from dgcnn_ws.engine.checkpoint import restore_model, write_json
    from dgcnn_ws.engine.devices import pick_device
    from dgcnn_ws.engine.recipe import complete
    from dgcnn_ws.engine.task import TASKS

    model, recipe, class_names = restore_model(args.checkpoint)
    if args.stream:
        recipe = complete(replace(recipe, stream=True))  # which refuses what cannot be streamed
    task = TASKS[recipe.task]
    dataset = task.load(recipe, args.split, args.data_root)
    if dataset.class_names != class_names:
        raise InputError(
            f"{args.checkpoint} was trained on other classes than {recipe.dataset} has at this --data-root."
        )
    if recipe.select == "test":
        print("This run chose its checkpoint ON THE TEST SET and trained on val: no score of it is an honest estimate.")
    device = pick_device(args.device)
    scores = task.evaluate(model.to(device), dataset, args.batch_size, device, args.votes)
    print(report(scores))
    print(f"{scores.num_clouds} of {len(dataset)} clouds of the {args.split} split scored, {args.votes} vote(s) each")
    if args.json:
        settings = {"checkpoint": str(args.checkpoint), "split": args.split, "votes": args.votes}
        write_json(args.json, settings | {"selected_on": recipe.select} | scores.as_json())
    if args.plot:
        from dgcnn_ws.pictures import plots

        plots.draw_confusion(scores.confusion, task.answer_names(dataset), args.plot, task.unit)
