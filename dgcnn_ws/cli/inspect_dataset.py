"""`inspect DATASET`: what a data set holds, and what may be wrong with it.

Prints the number of clouds of each class and split, the ranges of their coordinates, and duplicates. Two clouds are
duplicates when they hold exactly the same points, in whatever order; of one object sampled twice the points differ, and
--near-duplicates finds it, turned by quarters about the up axis or mirrored too.
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
from dgcnn_ws.text_table import aligned

if TYPE_CHECKING:
    from dgcnn_ws.datasets.looking.census import Duplicates, StoredSplit
    from dgcnn_ws.datasets.looking.near_duplicates import Pair

SHOWN = 10  # groups of duplicates in the report; --json has all
SHARED = 0.25  # part of the points, above which two clouds were drawn from one mesh by one seed


@dataclass(frozen=True)
class Arguments:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """shapes | modelnet10 | modelnet40 | the path of a folder that `prepare` wrote."""
    data_root: Path = Path("data")
    """Folder that holds the named data sets. Not for a path."""
    picture: Path | None = None
    """Draw some training clouds of each class to this file (.png, .pdf, .svg)."""
    near_duplicates: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Find test and validation shapes that are a training shape sampled again: minutes for thousands of shapes."""
    near_picture: Path | None = None
    """Draw such pairs to this file (.png, .pdf, .svg), those under two labels first. Asks for --near-duplicates."""
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
    rows = [[name, *(f"{row[part]:,}" for part in parts)] for name, row in [*counts.items(), ("all", total)]]
    return aligned([["class", *parts], *rows], "<" + ">" * len(parts))


def bounds_table(measured: dict[str, Any]) -> list[str]:
    """A line for each stored split."""
    rows = [["files", "x", "y (up)", "z", "radius", "mean off by"]]
    for split, row in measured.items():
        if row is None:
            rows.append([split, "no clouds"])
            continue
        ranges = [*zip(row["min"], row["max"], strict=True), tuple(row["radius"])]
        rows.append([split, *(f"{low:.3f} to {high:.3f}" for low, high in ranges), f"{row['largest_offset']:.1e}"])
    return aligned(rows, "<<<<<<")


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


def near_report(pairs: list["Pair"], queries: "StoredSplit", train: "StoredSplit", class_names: list[str]) -> list[str]:
    """A line for each class that has some, their sums, and the first that bear two labels."""
    found: dict[int, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(pair.query, []).append(pair)
    if not found:
        return ["none"]
    width = max(len(name) for name in ["class", *class_names])
    heads = ("shapes", "found", "same points", "only moved", "other label")
    lines = [f"{'class':<{width}}" + "".join(f"  {head:>11}" for head in heads)]
    totals = [0] * len(heads)
    for label, name in enumerate(class_names):
        of_class = [alike for query, alike in found.items() if queries.labels[query] == label]
        row = [
            int((queries.labels == label).sum()),
            len(of_class),
            sum(any(pair.shared > SHARED for pair in alike) for alike in of_class),
            sum(all(pair.turned or pair.mirrored for pair in alike) for alike in of_class),
            sum(any(train.labels[pair.reference] != label for pair in alike) for alike in of_class),
        ]
        totals = [total + count for total, count in zip(totals, row, strict=True)]
        if row[1]:
            lines.append(f"{name:<{width}}" + "".join(f"  {count:>11,}" for count in row))
    lines.append(f"{'all':<{width}}" + "".join(f"  {count:>11,}" for count in totals))
    two = [pair for pair in pairs if train.labels[pair.reference] != queries.labels[pair.query]]
    lines += [f"  {near_words(pair, queries, train, class_names)}" for pair in two[:SHOWN]]
    return lines


def near_words(pair: "Pair", queries: "StoredSplit", train: "StoredSplit", class_names: list[str]) -> str:
    moved = [f"turned by {pair.turned}"] * (pair.turned > 0) + ["mirrored"] * pair.mirrored
    return (
        f"{class_names[queries.labels[pair.query]]} {queries.places[pair.query]} is "
        f"{class_names[train.labels[pair.reference]]} {train.places[pair.reference]}{', '.join(['', *moved])}"
    )


def near_duplicates(
    splits: dict[str, "StoredSplit"], class_names: list[str], picture: Path | None
) -> dict[str, list[dict[str, Any]]]:
    """Print which shapes of test and of validation are training shapes, draw them, and return all as JSON has it."""
    import numpy as np

    from dgcnn_ws.datasets.looking.census import StoredSplit
    from dgcnn_ws.datasets.looking.near_duplicates import find_twins
    from dgcnn_ws.datasets.modelnet import validation_mask
    from dgcnn_ws.pictures.contact_sheet import draw_pairs

    train = splits["train"]
    is_val = validation_mask(train.labels, 0.1, 0)
    fit, val = (
        StoredSplit(train.points[rows], train.labels[rows], [train.places[i] for i in np.flatnonzero(rows)])
        for rows in (~is_val, is_val)
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for name, queries, known in (("test", splits["test"], train), ("val", val, fit)):
        pairs = find_twins(queries.points, known.points)
        print(f"\nshapes of {name} that are one that is trained on, sampled again:\n")
        print("\n".join(near_report(pairs, queries, known, class_names)))
        found[name] = [
            {name: queries.places[pair.query], "train": known.places[pair.reference]}
            | {"labels": [class_names[queries.labels[pair.query]], class_names[known.labels[pair.reference]]]}
            | {"turned": pair.turned, "mirrored": pair.mirrored}
            | {"distance": pair.distance, "residual": pair.residual, "shared": pair.shared}
            for pair in pairs
        ]
        if picture and name == "test":
            pairs.sort(key=lambda pair: bool(queries.labels[pair.query] == known.labels[pair.reference]))
            drawn = [
                (
                    queries.points[pair.query],
                    known.points[pair.reference],
                    near_words(pair, queries, known, class_names),
                )
                for pair in pairs
            ]
            draw_pairs(drawn, picture)
    return found


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "inspect", arguments, __doc__)
    check_picture("--picture", args.picture)
    check_picture("--near-picture", args.near_picture)
    check_folder_of(args.json, args.picture, args.near_picture)
    if args.near_picture and not args.near_duplicates:
        raise InputError(f"--near-picture {args.near_picture} draws what --near-duplicates finds. Add that.")
    from dgcnn_ws.datasets.looking.census import bounds, count_classes, find_duplicates, read_stored
    from dgcnn_ws.datasets.looking.first_look import first_look
    from dgcnn_ws.engine.folder.checkpoint import write_json

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
    print("\n".join(["", *first_look(folder)]))
    near = near_duplicates(splits, class_names, args.near_picture) if args.near_duplicates else None
    if args.json:
        found: dict[str, Any] = {"folder": str(folder), "num_points": num_points, "classes": counts, "bounds": measured}
        same = [
            [{"split": split, "place": place, "class": class_names[label]} for split, place, label in group.clouds]
            for group in duplicates
        ]
        write_json(args.json, found | {"duplicates": same} | ({"near_duplicates": near} if near is not None else {}))
    if args.picture:
        from dgcnn_ws.pictures.contact_sheet import draw_contact_sheet

        train = splits["train"]
        draw_contact_sheet(
            train.points, train.labels, class_names, f"{folder.resolve().name}: {headline}", args.picture
        )
