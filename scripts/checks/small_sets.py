"""`python -m scripts.checks.small_sets OUT`: ModelNet40 cut to few training shapes a class, as data sets to train on.

OUT/draw0, OUT/draw1, ... each hold their own draw of the training shapes and the whole test set, in the layout of the
original: `train --dataset OUT/draw0`. With --halves they hold every other class, and OUT/body all of the others, to see
what fine-tuning from the one to the other is worth.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import tyro

from dgcnn_ws.datasets.looking.census import StoredSplit, read_stored
from dgcnn_ws.datasets.modelnet import ModelNet40


@dataclass(frozen=True)
class Arguments:
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write the sets into."""
    data_root: Path = Path("data")
    """Folder that holds modelnet40_ply_hdf5_2048/."""
    per_class: int = 23
    """Training shapes of each class."""
    draws: int = 3
    """Sets, each of shapes drawn anew by its number."""
    halves: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Draw of the classes at odd places alone, and write those at even places whole as OUT/body."""
    validate: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Take as test set not ModelNet40's but 1,000 other training shapes: to choose settings by."""


def only(stored: StoredSplit, classes: range) -> StoredSplit:
    """The clouds of every other class, from the first of `classes`, with labels from 0."""
    rows = stored.labels % classes.step == classes.start
    places = [place for place, row in zip(stored.places, rows, strict=True) if row]
    return StoredSplit(stored.points[rows], stored.labels[rows] // classes.step, places)


def write_names(folder: Path, class_names: list[str]) -> None:
    folder.mkdir(parents=True)
    (folder / "shape_names.txt").write_text("".join(f"{name}\n" for name in class_names))


def write_split(folder: Path, split: str, points: np.ndarray, labels: np.ndarray) -> None:
    """Write clouds (n, num_points, 3) and their labels (n,) as the one file of a split."""
    with h5py.File(folder / f"ply_data_{split}0.h5", "w") as file:
        file["data"], file["label"] = points, labels.astype(np.uint8)[:, None]
    (folder / f"{split}_files.txt").write_text(f"ply_data_{split}0.h5\n")


def draw(train: StoredSplit, per_class: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of `per_class` shapes of each class in a random order, and those of all others."""
    order = np.random.default_rng(seed).permutation(len(train.labels))
    chosen = np.concatenate([order[train.labels[order] == label][:per_class] for label in np.unique(train.labels)])
    chosen = order[np.isin(order, chosen)]
    return chosen, order[~np.isin(order, chosen)]


def main() -> None:
    args = tyro.cli(Arguments, prog="python -m scripts.checks.small_sets", description=__doc__)
    stored, class_names = read_stored(ModelNet40.locate(args.data_root))
    if args.halves:
        write_names(args.out / "body", class_names[::2])
        for name, split in stored.items():
            half = only(split, range(0, len(class_names), 2))
            write_split(args.out / "body", name, half.points, half.labels)
        stored = {name: only(split, range(1, len(class_names), 2)) for name, split in stored.items()}
        class_names = class_names[1::2]
    train, test = stored["train"], stored["test"]
    for seed in range(args.draws):
        folder = args.out / f"draw{seed}"
        write_names(folder, class_names)
        chosen, others = draw(train, args.per_class, seed)
        write_split(folder, "train", train.points[chosen], train.labels[chosen])
        asked: Any = (train.points[others[:1000]], train.labels[others[:1000]])
        write_split(folder, "test", *(asked if args.validate else (test.points, test.labels)))
        print(f"{folder}: {len(chosen)} training shapes of {len(class_names)} classes")


if __name__ == "__main__":
    main()
