"""`predict CHECKPOINT FILE ...`: say which class the shape in each file is of, and how surely.

Reads off, obj, ply, stl, glb, npy, npz, xyz, txt and pts, and all such files of a folder. Each shape is treated as the
training data were, which the checkpoint knows: which axis points up, how many points are drawn, zero mean, unit sphere.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.cli.arguments import SKIPPED_SOME, check_picture
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import check_folder_of

if TYPE_CHECKING:
    import numpy as np

    from dgcnn_ws.datasets.frame import Frame

MAX_POINTS = 1 << 16
MAX_PICTURES = 12


@dataclass(frozen=True)
class Arguments:
    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """best.pt or last.pt of a run, or an imported checkpoint."""
    files: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE ...")]
    """Files with one shape each, or folders of them, at any depth."""
    up: Literal["z", "y", "stored"] | None = None
    """Axis that points up in the files; stored: they are clouds of the data set itself, as its files have them, and
    nothing is turned, mirrored or normalised. Default: as `prepare` was told, else z."""
    num_points: int | None = None
    """Points that the network sees; of a cloud that has fewer, all. Default: as in training."""
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
    picture: Path | None = None
    """Draw the first 12 shapes to this file (.png, .pdf, .svg), each point coloured by its share in the decision."""


def check(args: Arguments) -> None:
    if not args.files:
        raise InputError("there is nothing to predict. Name files, or folders of them, after the checkpoint.")
    if args.top < 1 or args.batch_size < 1 or (args.seed or 0) < 0:
        raise InputError(f"--top {args.top} and --batch-size {args.batch_size} must be at least 1, --seed at least 0.")
    check_picture("--picture", args.picture)
    check_folder_of(args.json, args.picture)


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


def load(path: Path, frame: "Frame", num_points: int, k: int) -> "np.ndarray":
    """Return what the network sees of a file (N, 3); InputError where it cannot be read, or has too few points."""
    from dgcnn_ws.datasets.network_input import network_input
    from dgcnn_ws.datasets.shape_file import ShapeWarning, load_shape, read_bytes

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ShapeWarning)
        shape = load_shape(read_bytes(path), path)
    for message in (str(warning.message) for warning in caught if issubclass(warning.category, ShapeWarning)):
        print(f"note: {message}")
    points = network_input(shape, frame, num_points, str(path))
    if len(points) < k:
        raise InputError(f"{path} has {len(points)} points, but each of this network's needs {k} neighbours.")
    return points


def frame_for(args: Arguments) -> "Frame":
    """Return how the files are to be read: as the checkpoint says, but for what the arguments do."""
    from dgcnn_ws.datasets.frame import STORED, as_stored
    from dgcnn_ws.engine.checkpoint import restore_frame

    frame = restore_frame(args.checkpoint)
    if args.up == STORED:
        frame = as_stored(frame)
    elif args.up is not None:
        frame = replace(frame, up=args.up)
    return frame if args.seed is None else replace(frame, seed=args.seed)


def answer(path: Path, probabilities: "np.ndarray", class_names: list[str], top: int) -> dict[str, Any]:
    best = (-probabilities).argsort(kind="stable")[:top]
    return {"file": str(path), "classes": {class_names[i]: round(float(probabilities[i]), 6) for i in best}}


def table(answers: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each shape: its file, and its classes with their probabilities."""
    width = max(len(answer["file"]) for answer in answers)
    for line in answers:
        classes = "  ".join(f"{name} {share:.1%}" for name, share in line["classes"].items())
        yield f"{line['file']:<{width}}  {classes}"


def main(arguments: list[str]) -> int:
    args = parser.parse(Arguments, "predict", arguments, __doc__)
    check(args)
    from tqdm import tqdm

    from dgcnn_ws.engine.checkpoint import restore_model, write_json
    from dgcnn_ws.engine.devices import pick_device
    from dgcnn_ws.inference.prediction import predict

    files, skipped = list_files(args.files)
    device = pick_device(args.device)
    model, recipe, class_names = restore_model(args.checkpoint)
    if recipe.task != "classify":
        raise InputError(f"{args.checkpoint} segments clouds into parts; predict needs a classifier's checkpoint.")
    num_points = recipe.num_points if args.num_points is None else args.num_points
    if not recipe.k <= num_points <= MAX_POINTS:
        raise InputError(f"--num-points {num_points} must lie between the network's k, {recipe.k}, and {MAX_POINTS}.")
    frame = frame_for(args)
    model.to(device)
    answers: list[dict[str, Any]] = []
    drawn: list[tuple[np.ndarray, np.ndarray, str]] = []
    with tqdm(total=len(files), unit=" shapes", disable=None, dynamic_ncols=True, leave=False) as bar:
        for start in range(0, len(files), args.batch_size):
            clouds: dict[Path, np.ndarray] = {}
            for path in files[start : start + args.batch_size]:
                try:
                    clouds[path] = load(path, frame, num_points, recipe.k)
                except InputError as error:
                    skipped.append({"file": str(path), "reason": str(error)})
                bar.update()
            if not clouds:
                continue
            said = predict(model, list(clouds.values()), device)
            for path, row, won in zip(clouds, said.probabilities, said.wins, strict=True):
                answers.append(answer(path, row, class_names, args.top))
                if len(drawn) < MAX_PICTURES:
                    (best, share) = next(iter(answers[-1]["classes"].items()))
                    drawn.append((clouds[path], won, f"{path.name}: {best} {share:.0%}"))
    for line in skipped:
        print(f"skipped: {line['reason']}")
    if not answers:
        raise InputError("none of the files could be read.")
    print("\n".join(table(answers)))
    print(frame.says() + (f"; {len(skipped)} could not be read" if skipped else ""))
    if args.json:
        write_json(args.json, {"checkpoint": str(args.checkpoint), "predictions": answers, "skipped": skipped})
    if args.picture:
        from dgcnn_ws.pictures import plots

        plots.draw_wins(drawn, args.picture)
    return SKIPPED_SOME if skipped else 0
