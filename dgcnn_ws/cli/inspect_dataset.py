"""`inspect DATASET`: what a data set holds, and what may be wrong with it.

Prints the number of clouds of each class and split, the ranges of their coordinates, and duplicates. Two clouds are
duplicates when they hold exactly the same points, in whatever order; of one object sampled twice the points differ, and
it is not found.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.cli.arguments import check_picture
from dgcnn_ws.engine.recipe import check_data_root
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import check_folder_of

if TYPE_CHECKING:
    from dgcnn_ws.datasets.census import Duplicates

SHOWN = 10  # groups of duplicates in the report; --json has all


@dataclass(frozen=True)
class Arguments:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """shapes | modelnet10 | modelnet40 | the path of a folder that `prepare` wrote."""
    data_root: Path = Path("data")
    """Folder that holds the named data sets. Not for a path."""
    picture: Path | None = None
    """Draw some training clouds of each class to this file (.png, .pdf, .svg)."""
    json: Path | None = None
    """Write all of it to this file, every duplicate too."""


def locate(dataset: str, root: Path) -> Path:
    from dgcnn_ws.datasets import DATASETS

    known = [name for name in DATASETS if name != "folder"]
    if dataset in known:
        return DATASETS[dataset].locate(root)
    if not Path(dataset).is_dir():
        raise InputError(f"{dataset!r} is no data set ({', '.join(known)}) and no folder.")
    return Path(dataset)


def class_table(counts: dict[str, dict[str, int]]) -> list[str]:
    """A line for each class, and their sums."""
    parts = list(next(iter(counts.values())))
    total = {part: sum(row[part] for row in counts.values()) for part in parts}
    width = max(len(name) for name in ["class", *counts])
    lines = [f"{'class':<{width}}" + "".join(f"  {part:>6}" for part in parts)]
    for name, row in [*counts.items(), ("all", total)]:
        lines.append(f"{name:<{width}}" + "".join(f"  {row[part]:>6,}" for part in parts))
    return lines


def bounds_table(measured: dict[str, Any]) -> list[str]:
    """A line for each stored split."""
    lines = ["files  " + "".join(f"{head:<18}" for head in ("x", "y (up)", "z", "radius")) + "mean off by"]
    for split, row in measured.items():
        if row is None:
            lines.append(f"{split:<7}no clouds")
            continue
        ranges = [*zip(row["min"], row["max"], strict=True), tuple(row["radius"])]
        lines.append(
            f"{split:<7}" + "".join(f"{f'{low:.3f} to {high:.3f}':<18}" for low, high in ranges)
            + f"{row['largest_offset']:.1e}"
        )  # fmt: skip
    return lines


def duplicate_report(groups: "list[Duplicates]") -> list[str]:
    """How many duplicates there are within and across the splits, and the first of them."""
    if not groups:
        return ["duplicates: none, neither within train or test nor across them"]
    train, test, both = (
        sum(group.splits == splits for group in groups) for splits in ({"train"}, {"test"}, {"train", "test"})
    )
    lines = [
        f"duplicates: {sum(len(group.clouds) for group in groups):,} clouds, same as another. Groups of them: "
        f"{train:,} within train, {test:,} within test, {both:,} across both; "
        f"{sum(group.has_two_labels for group in groups):,} under more than one label"
    ]
    lines += ["  " + " = ".join(place for _, place, _ in group.clouds) for group in groups[:SHOWN]]
    if len(groups) > SHOWN:
        lines.append(f"  and {len(groups) - SHOWN:,} more; --json FILE has all")
    return lines


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "inspect", arguments, __doc__)
    check_picture("--picture", args.picture)
    check_folder_of(args.json, args.picture)
    from dgcnn_ws.datasets.census import bounds, count_classes, find_duplicates, read_stored
    from dgcnn_ws.engine.checkpoint import write_json

    check_data_root(args.dataset, args.data_root)
    folder = locate(args.dataset, args.data_root)
    splits, class_names = read_stored(folder)
    num_points = splits["train"].points.shape[1]
    counts = count_classes(splits, class_names)
    measured = {name: bounds(split) for name, split in splits.items()}
    duplicates = find_duplicates(splits)
    num_clouds = sum(len(split.labels) for split in splits.values())
    headline = f"{num_clouds:,} clouds of {num_points:,} points, {len(class_names)} classes"
    print(f"{folder}: {headline}\n")
    print("\n".join([*class_table(counts), "", *bounds_table(measured), "", *duplicate_report(duplicates)]))
    if args.json:
        found = {"folder": str(folder), "num_points": num_points, "classes": counts, "bounds": measured}
        same = [
            [{"split": split, "place": place, "class": class_names[label]} for split, place, label in group.clouds]
            for group in duplicates
        ]
        write_json(args.json, found | {"duplicates": same})
    if args.picture:
        from dgcnn_ws.pictures.contact_sheet import draw_contact_sheet

        train = splits["train"]
        draw_contact_sheet(
            train.points, train.labels, class_names, f"{folder.resolve().name}: {headline}", args.picture
        )
