"""`evaluate CHECKPOINT`: score a checkpoint; everything but where to look comes from the checkpoint."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.cli.arguments import check_picture, votes_of
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import check_folder_of
from dgcnn_ws.text_table import aligned

if TYPE_CHECKING:
    import torch
    from torch import nn

    from dgcnn_ws.datasets import LabelledClouds
    from dgcnn_ws.datasets.corrupt import CorruptedClouds
    from dgcnn_ws.engine.recipe import Recipe
    from dgcnn_ws.engine.scoring.evaluation import Scores
    from dgcnn_ws.inference.scoring import Judgement


FOR_CLASSIFIERS = ("rotate", "re_estimate", "corrupt", "twins", "labels", "csv", "reliability", "gallery")


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """best.pt or last.pt of a run."""
    data_root: Path | None = None
    """Folder that holds the data set. Default: where it was at training."""
    split: Literal["test", "val", "train"] = "test"
    """What to score; train is without val."""
    num_points: int | None = None
    """Points that the network sees, the first of those stored. Default: as in training."""
    votes: int | None = None
    """Predictions averaged: of the cloud itself and of votes - 1 copies. Default: 1, with --rotate 12."""
    rotate: Literal["none", "up", "any"] = "none"
    """What the copies are: none, scaled at random; up, turned to headings all around the up axis; any, turned to
    orientations of all kinds. For a network whose training turned clouds so."""
    corrupt: str | None = None
    """Also score shapes as the world outside has them, each kind at two strengths, with commas between: uniform |
    gaussian | impulse | background (noise) | fewer | uneven | cutout (density) | occlusion | lidar | tilt | shear |
    bulge | all. After ModelNet40-C (arXiv 2201.12296), made anew from the stored points."""
    twins: Path | None = None
    """Also score without the shapes that `inspect --near-duplicates --json` found to be training shapes: that file."""
    labels: Path | None = None
    """Also score by other labels: a CSV with columns name,label; a shape whose label is empty does not count."""
    top: int = 5
    """Also say how often the right class is among so many likeliest."""
    batch_size: int = 16
    """Clouds at a time; does not change the result."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N."""
    re_estimate: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """First take batch norm's running statistics anew over the training clouds (precise BN, arXiv 2105.07576),
    and the estimates after them: a point at most where training went well, part of what micro-batches of one cloud
    lost, nothing where batch norm in the head had two. The temperature is fitted anew on validation."""
    save: Path | None = None
    """Write the checkpoint with those statistics to this file. Asks for --re-estimate."""
    stream: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Read clouds from the files as they are used, for splits that memory does not hold."""
    json: Path | None = None
    """Write the scores to this file."""
    csv: Path | None = None
    """Write a line a cloud to this file: where it lies, its label, its prediction, their probabilities."""
    plot: Path | None = None
    """Draw the confusion matrix into this picture (.png, .pdf, .svg)."""
    reliability: Path | None = None
    """Draw how often answers of each confidence are right, before and after calibration."""
    gallery: Path | None = None
    """Draw the clouds that are most surely taken for something else."""


def check(args: Arguments) -> None:
    votes = votes_of(args.votes, args.rotate)
    if args.save and not args.re_estimate:
        raise InputError(f"--save {args.save} writes what --re-estimate finds. Add that.")
    if votes < 1 or args.batch_size < 1 or args.top < 1:
        raise InputError(f"--votes {votes}, --batch-size {args.batch_size} and --top {args.top} must be at least 1.")
    if args.corrupt:
        kinds_of(args.corrupt)
    outputs = [args.save, args.json, args.csv, args.plot, args.reliability, args.gallery]
    checkpoint, seen = args.checkpoint, set[Path]()
    read = [checkpoint, checkpoint / "best.pt", checkpoint / "last.pt", args.twins, args.labels]
    for file in filter(None, outputs):
        if file.resolve() in {path.resolve() for path in read if path}:
            raise InputError(f"{file} is read, and must not be written over. Name another file.")
        if file.resolve() in seen:
            raise InputError(f"{file} is named for two things. Name a file for each.")
        seen.add(file.resolve())
    if args.save and args.save.name in ("best.pt", "last.pt") and (args.save.parent / "config.json").is_file():
        raise InputError(f"--save {args.save} is what that run goes on from, and is not written over. Name another.")
    for flag in ("plot", "reliability", "gallery"):
        check_picture(f"--{flag}", getattr(args, flag))
    check_folder_of(*outputs)


def kinds_of(text: str) -> list[str]:
    """Return the kinds of corruption that --corrupt names, `none` first."""
    from dgcnn_ws.datasets.corrupt import CORRUPTIONS

    known = [kind for kind in CORRUPTIONS if kind != "none"]
    kinds = parser.words("--corrupt", text)
    if kinds == ["all"]:
        return ["none", *known]
    for kind in kinds:
        if kind not in known:
            raise InputError(f"--corrupt {kind!r} is no kind of corruption. Choose of {', '.join(known)}, or say all.")
    return ["none", *kinds]


def report(scores: "Scores") -> str:
    """Return the per-class table and the totals as text."""
    from dgcnn_ws.engine.scoring.segmentation import PartScores

    what, of = ("part", "points") if isinstance(scores, PartScores) else ("class", "clouds")
    rows, precision = [[what, of, "correct", "accuracy", "precision", "most often taken for"]], scores.precision
    for i, (name, accuracy) in enumerate(scores.per_class.items()):
        row = scores.confusion[i]
        wrong = max((j for j in range(len(row)) if j != i), key=row.__getitem__, default=i)
        mistake = f"{list(scores.per_class)[wrong]} ({row[wrong]})" if row[wrong] and wrong != i else ""
        shares = ["-" if share is None else f"{share:.1%}" for share in (accuracy, precision[name])]
        rows.append([name, f"{sum(row)}", f"{row[i]}", *shares, mistake])
    lines = [
        *aligned(rows, "<>>>><"),
        "",
        f"overall accuracy {scores.overall_accuracy:.2%}, mean class accuracy {scores.mean_class_accuracy:.2%}, "
        f"loss {scores.loss:.3f}",
    ]
    if isinstance(scores, PartScores):
        mious = [[name, f"{miou:.1%}"] for name, miou in scores.per_category.items() if miou is not None]
        lines += aligned(mious, "<>")
        lines.append(f"instance mIoU {scores.instance_miou:.2%}, class mIoU {scores.class_miou:.2%}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Asked:
    """What is read before anything is scored, so that a mistake in it costs nothing."""

    twins: "torch.Tensor | None"
    other_labels: "tuple[torch.Tensor, torch.Tensor] | None"
    corrupted: "list[CorruptedClouds]"


def percent(accuracy: dict[str, Any]) -> str:
    return f"{accuracy['overall_accuracy']:.2%}" if accuracy["num_clouds"] else "-"


def judged(judgement: "Judgement", args: Arguments, asked: Asked) -> dict[str, Any]:
    """Print, write and return what the probabilities of single clouds are worth."""
    found = judgement.as_json({1, args.top})
    if 1 < args.top < len(judgement.dataset.class_names):
        share = found["top_accuracy"][str(args.top)]
        print(f"the right class is among the {args.top} likeliest of {share:.2%} of the clouds")
    before, after = found["calibration_error"].values()
    fitted = f", {after:.3f} at temperature {judgement.temperature:.2f}, fitted on validation"
    print(f"calibration error (ECE, 15 bins) {before:.3f}" + (fitted if judgement.temperature != 1 else ""))
    if args.csv:
        judgement.write_csv(args.csv)
    if args.reliability:
        judgement.draw_reliability(args.reliability)
    if args.gallery:
        judgement.draw_gallery(args.gallery)
    if asked.twins is not None:
        found["without_twins"], found["twins"] = judgement.accuracy(~asked.twins), judgement.accuracy(asked.twins)
        parts = [f"{percent(part)} of {part['num_clouds']}" for part in (found["without_twins"], found["twins"])]
        print(f"overall accuracy without training shapes {parts[0]} clouds, on these alone {parts[1]}")
    if asked.other_labels is not None:
        counted, labels = asked.other_labels
        found["by_other_labels"] = judgement.accuracy(counted, labels)
        changed = int((labels != judgement.labels).sum())
        print(
            f"overall accuracy by {args.labels}, which changes {changed} labels and leaves {int((~counted).sum())} "
            f"out: {percent(found['by_other_labels'])}"
        )
    return found


def check_finite(checkpoint: Path, scores: "Scores") -> None:
    if not math.isfinite(scores.loss):
        raise InputError(f"{checkpoint} answers NaN: its weights are damaged, or its training failed.")


def take_anew(
    args: Arguments, content: dict[str, Any], model: "nn.Module", recipe: "Recipe", device: "torch.device"
) -> None:
    """Give the model statistics of all training clouds, and `content`, the checkpoint's, both and a temperature."""
    from dgcnn_ws.engine.folder.checkpoint import save_checkpoint
    from dgcnn_ws.engine.scoring.evaluation import EVAL_BATCH, evaluate
    from dgcnn_ws.engine.scoring.precise_bn import BATCH, re_estimate
    from dgcnn_ws.engine.task import TASKS

    load = TASKS[recipe.task].load
    clouds = load(recipe, "train" if recipe.select == "val" else "trainval", args.data_root)
    if len(clouds) < 2:
        raise InputError("--re-estimate takes statistics of training clouds, and there is one alone: leave it out.")
    count = re_estimate(model, clouds, BATCH, device)
    if not count:
        raise InputError(f"{args.checkpoint} has no batch norm with running statistics: leave out --re-estimate.")
    if not all(bool(value.isfinite().all()) for value in model.state_dict().values()):
        raise InputError(f"{args.checkpoint} is damaged: its weights, or what comes of them, are not finite.")
    print(f"running statistics of {count} norms taken anew over {len(clouds)} training clouds, {BATCH} at a time")
    content["model"] = model.state_dict()
    content.pop("temperature", None)
    if recipe.select == "val":
        validation = load(recipe, "val", args.data_root)
        content["temperature"] = evaluate(model, validation, EVAL_BATCH, device, calibrate=True).temperature
    if args.save:
        to_go_on = ("optimizer", "scaler", "progress", "trained")  # training starts from statistics of its own
        save_checkpoint(args.save, {name: value for name, value in content.items() if name not in to_go_on})


def corruptions(args: Arguments, recipe: "Recipe", clouds: "LabelledClouds") -> "list[CorruptedClouds]":
    """Return the clouds as each kind of corruption, at each strength, leaves them.

    Raises InputError where one leaves fewer points than the network has neighbours.
    """
    from dgcnn_ws.datasets import HDF5Clouds, StreamedClouds
    from dgcnn_ws.datasets.corrupt import STRENGTHS, CorruptedClouds
    from dgcnn_ws.datasets.hdf5 import fewest_points
    from dgcnn_ws.engine.task import TASKS

    if not args.corrupt:
        return []
    if isinstance(clouds, HDF5Clouds | StreamedClouds):  # of all that is stored, then as many as the network sees
        whole = replace(recipe, num_points=fewest_points(clouds.files))
        clouds = TASKS[recipe.task].load(whole, args.split, args.data_root)
    found = []
    for kind in kinds_of(args.corrupt):
        for strength in STRENGTHS if kind != "none" else STRENGTHS[:1]:
            found.append(CorruptedClouds(clouds, recipe.num_points, kind, strength))
            if (left := found[-1].num_points) < recipe.k:
                raise InputError(f"--corrupt {kind} leaves {left} points, fewer than the {recipe.k} neighbours.")
    return found


def score_corrupted(
    corrupted: "list[CorruptedClouds]", model: "nn.Module", batch_size: int, device: "torch.device"
) -> dict[str, dict[str, float]]:
    """Print and return the accuracy on clouds corrupted in each way, by kind and strength."""
    from tqdm import tqdm

    from dgcnn_ws.datasets.corrupt import STRENGTHS
    from dgcnn_ws.engine.scoring.evaluation import evaluate

    found: dict[str, dict[str, float]] = {}
    for clouds in tqdm(corrupted, unit=" sets", disable=None, leave=False):
        accuracy = evaluate(model, clouds, batch_size, device).overall_accuracy
        found.setdefault(clouds.kind, {})[str(clouds.strength)] = accuracy
    rows = [["corruption", *(f"strength {strength}" for strength in STRENGTHS)]]
    rows += [[kind, *(f"{100 * share:.1f}" for share in shares.values()), ""][:3] for kind, shares in found.items()]
    print("\n".join(["", *aligned(rows, "<>>"), ""]))
    return found


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "evaluate", arguments, __doc__)
    check(args)
    from dgcnn_ws.engine.folder.checkpoint import load_checkpoint, restore_model, restore_temperature, write_json
    from dgcnn_ws.engine.machine.devices import pick_device
    from dgcnn_ws.engine.recipe import complete
    from dgcnn_ws.engine.scoring.evaluation import LogProbabilities, evaluate
    from dgcnn_ws.engine.task import TASKS
    from dgcnn_ws.inference.scoring import Judgement, read_other_labels, read_twins

    content = load_checkpoint(args.checkpoint)
    model, recipe, class_names = restore_model(args.checkpoint, content)
    if args.stream:
        recipe = complete(replace(recipe, stream=True))  # which refuses what cannot be streamed
    if args.num_points is not None:
        if args.num_points < recipe.k:
            raise InputError(f"--num-points {args.num_points} is below the {recipe.k} neighbours of this network.")
        recipe = replace(recipe, num_points=args.num_points)
    if recipe.task == "segment" and any(getattr(args, name) not in (None, False, "none") for name in FOR_CLASSIFIERS):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in FOR_CLASSIFIERS)
        raise InputError(f"{args.checkpoint} segments clouds into parts; {flags} are for classifiers.")
    task = TASKS[recipe.task]
    dataset = task.load(recipe, args.split, args.data_root)
    if dataset.class_names != class_names:
        raise InputError(
            f"{args.checkpoint} was trained on other classes than {recipe.dataset} has at this --data-root."
        )
    if recipe.select == "test":
        print("This run chose its checkpoint ON THE TEST SET and trained on val: no score of it is an honest estimate.")
    device, votes = pick_device(args.device), votes_of(args.votes, args.rotate)
    model.to(device)
    asked = Asked(
        read_twins(args.twins, dataset) if args.twins else None,
        read_other_labels(args.labels, dataset) if args.labels else None,
        corruptions(args, recipe, dataset),
    )
    if args.re_estimate:
        take_anew(args, content, model, recipe, device)
    if recipe.task == "segment":
        scores = task.evaluate(model, dataset, args.batch_size, device, votes)
        check_finite(args.checkpoint, scores)
        print(report(scores))
        found: dict[str, Any] = {}
    else:
        said = LogProbabilities(len(dataset), len(class_names))
        scores = evaluate(model, dataset, args.batch_size, device, votes, rotate=args.rotate, hear=said)
        check_finite(args.checkpoint, scores)
        print(report(scores))
        judgement = Judgement(dataset, said.values, restore_temperature(args.checkpoint, content))
        found = judged(judgement, args, asked)
        if asked.corrupted:
            found["corrupted"] = score_corrupted(asked.corrupted, model, args.batch_size, device)
    how = f"{votes} vote(s) each" + (f", turned ({args.rotate})" if args.rotate != "none" else "")
    seen = f"{recipe.num_points} points, " if args.num_points else ""
    print(f"{scores.num_clouds} of {len(dataset)} clouds of the {args.split} split scored, {seen}{how}")
    if args.json:
        settings = {"checkpoint": str(args.checkpoint), "split": args.split, "votes": votes, "rotate": args.rotate}
        settings |= {"num_points": recipe.num_points, "selected_on": recipe.select, "re_estimated": args.re_estimate}
        write_json(args.json, settings | scores.as_json() | {"precision": scores.precision} | found)
    if args.plot:
        from dgcnn_ws.pictures import plots

        plots.draw_confusion(scores.confusion, task.answer_names(dataset), args.plot, task.unit)
