"""`predict CHECKPOINT FILE ...`: say which class the shape in each file is of, and how surely.

Reads what `prepare` reads, and all such files of a folder. Each shape is treated as the training data were, which the
checkpoint knows: which axis points up, how many points are drawn, zero mean, unit sphere. The probabilities are those
at the temperature that training fitted on validation.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.cli.arguments import SKIPPED_SOME, check_picture, votes_of
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import check_folder_of

if TYPE_CHECKING:
    from dgcnn_ws.inference.answering import Answered
    from dgcnn_ws.inference.finished import Classifier

MAX_PICTURES = 12
MAX_ON_PAGE = 500


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """best.pt or last.pt of a run, or an imported checkpoint."""
    files: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE ...", help_behavior_hint="(required)")
    ]
    """Files with one shape each, or folders of them, at any depth."""
    up: Literal["z", "y", "stored"] | None = None
    """Axis that points up in the files; stored: they are clouds of the data set itself, as its files have them, and
    nothing is turned, mirrored or normalised. Default: as `prepare` was told, else z."""
    num_points: int | None = None
    """Points that the network sees. Default: as in training."""
    votes: int | None = None
    """Predictions averaged: of the shape itself and of votes - 1 turned copies. Default: 1, with --rotate 12."""
    rotate: Literal["none", "up", "any"] = "none"
    """How the copies are turned: up, to headings all around the up axis; any, to orientations of all kinds. For a
    network whose training turned clouds so."""
    top: int = 5
    """Likeliest classes to show of each shape."""
    seed: int | None = None
    """Decides which points are drawn. Default: as `prepare` was told, else 0."""
    batch_size: int = 16
    """Shapes at a time; does not change the result."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N."""
    json: Path | None = None
    """Write the predictions to this file."""
    csv: Path | None = None
    """Write a line a shape to this file, with the probability of every class."""
    features: Path | None = None
    """Write the pooled vector that the network makes of each shape to this file (.npz: `features`, `files`)."""
    picture: Path | None = None
    """Draw up to 12 shapes, evenly spaced over the files, to this file (.png, .pdf, .svg), each point coloured by its
    share in the decision."""
    html: Path | None = None
    """Write a page of up to 500 shapes to turn in any browser, each point coloured by its share in the decision."""


def check(args: Arguments) -> None:
    if not args.files:
        raise InputError("there is nothing to predict. Name files, or folders of them, after the checkpoint.")
    if args.top < 1 or args.batch_size < 1 or (args.seed or 0) < 0:
        raise InputError(f"--top {args.top} and --batch-size {args.batch_size} must be at least 1, --seed at least 0.")
    if args.votes is not None and (args.votes < 1 or args.rotate == "none"):
        raise InputError(f"--votes {args.votes} must be at least 1, and needs --rotate up or any.")
    if args.features and args.features.suffix.lower() != ".npz":
        raise InputError(f"--features {args.features} cannot be written. End it in .npz.")
    check_picture("--picture", args.picture)
    check_folder_of(args.json, args.csv, args.features, args.picture, args.html)


def list_files(paths: tuple[Path, ...]) -> tuple[list[Path], list[dict[str, str]]]:
    """Return the files named and those of the folders named, at any depth; and which of these are not read, and why."""
    from dgcnn_ws.datasets.preparing.shape_source import is_shape, list_names, why_no_shape
    from dgcnn_ws.datasets.shape_file import READERS

    files: list[Path] = []
    left_out: list[dict[str, str]] = []
    for path in paths:
        names = list_names(path) if path.is_dir() else []
        found = [path / name for name in names if is_shape(name)] if path.is_dir() else [path]
        if not found:
            raise InputError(f"{path} holds no file that ends in {', '.join(READERS)}.")
        files += found
        reasons = ((name, why_no_shape(name)) for name in names if not is_shape(name))
        left_out += [{"file": str(path / name), "reason": f"{path / name}: {why}"} for name, why in reasons if why]
    return files, left_out


def table(answers: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each shape: its file, and its classes with their probabilities."""
    width = max(len(answer["file"]) for answer in answers)
    for line in answers:
        classes = "  ".join(f"{name} {share:.1%}" for name, share in line["classes"].items())
        yield f"{line['file']:<{width}}  {classes}"


def network_for(args: Arguments) -> "Classifier":
    """Return the checkpoint's network, on the device and for files as the arguments say."""
    from dgcnn_ws.datasets.frame import with_up
    from dgcnn_ws.engine.machine.devices import pick_device
    from dgcnn_ws.inference.finished import Classifier
    from dgcnn_ws.inference.load import load

    device = pick_device(args.device)
    model = load(args.checkpoint)
    if not isinstance(model, Classifier):
        raise InputError(f"{args.checkpoint} segments clouds into parts; predict needs a classifier's checkpoint.")
    model.num_points = model.num_points if args.num_points is None else args.num_points
    model.check_num_points(model.num_points)
    model.frame = model.frame if args.up is None else with_up(model.frame, args.up)
    model.frame = model.frame if args.seed is None else replace(model.frame, seed=args.seed)
    return model.to(device)


def main(arguments: list[str]) -> int:
    args = parser.parse(Arguments, "predict", arguments, __doc__)
    check(args)
    from dgcnn_ws.datasets.augment import rotations
    from dgcnn_ws.engine.folder.checkpoint import write_json
    from dgcnn_ws.inference.answering import ask

    files, left_out = list_files(args.files)
    show = MAX_ON_PAGE if args.html else MAX_PICTURES if args.picture else 0
    model, views = network_for(args), rotations(args.rotate, votes_of(args.votes, args.rotate))
    answered = ask(model, files, views, args.batch_size, show)
    answered.skipped[:0] = left_out
    for notice in answered.notices:
        print(f"note: {notice}")
    for line in answered.skipped:
        print(f"skipped: {line['reason']}")
    if not answered.files:
        raise InputError("none of the files could be read.")
    answers, score = answered.as_json(args.top), answered.score()
    print("\n".join(table(answers)))
    if score:
        print("{right} of {of} shapes are called as the folders that they lie in: {accuracy:.2%}".format(**score))
    for note in answered.notes(model):
        print(note)
    print(model.frame.says() + (f"; {len(answered.skipped)} could not be read" if answered.skipped else ""))
    if args.json:
        content = {"checkpoint": str(args.checkpoint), "temperature": model.temperature, "predictions": answers}
        write_json(args.json, content | {"skipped": answered.skipped} | ({"score": score} if score else {}))
    if args.csv:
        answered.write_csv(args.csv)
    if args.features:
        answered.write_features(args.features)
    draw(args, answered)
    return SKIPPED_SOME if answered.skipped else 0


def draw(args: Arguments, answered: "Answered") -> None:
    """Draw the picture and write the page, where asked for, and say which of many shapes they show."""
    if args.picture:
        from dgcnn_ws.inference.answering import spread
        from dgcnn_ws.pictures import plots

        chosen = [answered.shown[i] for i in spread(len(answered.shown), MAX_PICTURES)]
        plots.draw_wins([(shape.points, shape.wins, shape.title) for shape in chosen], args.picture)
        tell(args.picture, len(chosen), answered)
    if args.html:
        from dgcnn_ws.pictures.page import write_page

        write_page(answered.shown, f"What {args.checkpoint} says", args.html)
        tell(args.html, len(answered.shown), answered)


def tell(path: Path, count: int, answered: "Answered") -> None:
    if count < len(answered.files):
        print(f"{path}: {count} of {len(answered.files)} shapes, evenly spaced over the files")
