"""Folders or archives of shapes, one file each, turned into the HDF5 layout that `HDF5Clouds` reads."""

import json
import multiprocessing
import signal
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from dgcnn_ws.datasets.frame import FEATURES, MAX_POINTS, Frame, channels_of, check_axis
from dgcnn_ws.datasets.hdf5 import ARRAYS
from dgcnn_ws.datasets.modelnet import validation_mask
from dgcnn_ws.datasets.network_input import network_input
from dgcnn_ws.datasets.preparing.layout import SPLITS, Entry, Listing, find_entries
from dgcnn_ws.datasets.preparing.shape_source import read_member
from dgcnn_ws.datasets.shape_file import ShapeWarning, load_shape
from dgcnn_ws.errors import InputError

CLOUDS_PER_FILE = 2048


@dataclass(frozen=True)
class Settings:
    """What decides the contents of a prepared folder, beside the source.

    Args:
        num_points: points stored of each shape.
        up: the axis that points up in the files, `z` or `y`.
        test_fraction: share of each class that becomes test, where the source has no split of its own.
        seed: decides that share, and with a shape its points.
        mirrored: store mirror images, as the published ModelNet40 is of Princeton's meshes.
        features: what is stored of each point beside its place, some of `frame.FEATURES` in their order.
    """

    num_points: int = 2048
    up: str = "z"
    test_fraction: float = 0.2
    seed: int = 0
    mirrored: bool = False
    features: tuple[str, ...] = ()

    @property
    def frame(self) -> Frame:
        """How shapes become the stored clouds."""
        frame = Frame(self.up, self.num_points, mirrored=self.mirrored, fill="repeat", draw="contents", seed=self.seed)
        return replace(frame, channels=channels_of(self.features))


@dataclass
class Report:
    """What became of the files."""

    class_names: list[str]
    listing: Listing = field(default_factory=Listing)
    classes: dict[str, Counter[str]] = field(default_factory=dict)  # of each: `files`, `train`, `test`, and reasons
    notes: list[dict[str, str]] = field(default_factory=list)  # `file` and `note`, of shapes read in part
    written: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    skipped: list[dict[str, str]] = field(default_factory=list)  # `file` and `reason`
    repeated: int = 0  # clouds of fewer points than are stored, so that some occur more than once

    @property
    def dropped(self) -> int:
        """Files that may have been meant, and folders that may have been classes, that the data set lacks."""
        return len(self.skipped) + len(self.listing.left_out) + len(self.listing.empty)

    def lines(self) -> Iterator[str]:
        """Yield a line a class: its files, the clouds of each split, and what was left out, and why."""
        names = [*self.class_names, *self.listing.empty]
        width = max(len(name) for name in [*names, "class"])
        yield f"{'class':{width}}  files  train   test  left out"
        for name in names:
            counts = self.classes.get(name, Counter())
            reasons = [(n, reason) for reason, n in counts.items() if reason not in ("files", *SPLITS)]
            why = [f"{n}: {reason}" for n, reason in reasons]
            missing = " or ".join(split for split in SPLITS if not counts[split])
            if not counts["files"]:
                why = ["an empty folder"]
            elif missing and name in self.class_names:
                why.append(f"none for {missing}")
            row = f"{name:{width}}  {counts['files']:5}  {counts['train']:5}  {counts['test']:5}  {'; '.join(why)}"
            yield row.rstrip()


def assign_splits(entries: list[Entry], settings: Settings) -> dict[str, list[Entry]]:
    """Entries by split: the source's own, or else a share of each class drawn by the seed."""
    if entries[0].split is not None:
        return {split: [entry for entry in entries if entry.split == split] for split in SPLITS}
    if not 0 < settings.test_fraction < 1:
        raise InputError(f"--test-fraction {settings.test_fraction} must lie between 0 and 1.")
    names = sorted({entry.class_name for entry in entries})
    labels = np.array([names.index(entry.class_name) for entry in entries])
    is_test = validation_mask(labels, settings.test_fraction, settings.seed)
    return {
        split: [entry for entry, test in zip(entries, is_test, strict=True) if test == (split == "test")]
        for split in SPLITS
    }


# --- one shape ---

# Points (num_points, C) float32, whether some had to be repeated, and what of the file is not in them.
Cloud = tuple[np.ndarray, bool, list[str]]


def prepare_cloud(source: Path, settings: Settings, entry: Entry) -> Cloud | str:
    """One file's points, or why it has none: a pure function of its contents and the settings."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ShapeWarning)
            shape = load_shape(read_member(source, entry.path), entry.path, settings.features)
        points = network_input(shape, settings.frame, settings.num_points, str(entry.path))
    except InputError as error:
        return str(error)
    notes = [str(warning.message) for warning in caught if issubclass(warning.category, ShapeWarning)]
    return points, shape.ndim == 2 and len(shape) < settings.num_points, notes


def prepare_clouds(
    source: Path, settings: Settings, entries: list[Entry], jobs: int
) -> Iterator[tuple[Entry, Cloud | str]]:
    """Every entry with its cloud, or with what is wrong with it, in order, by `jobs` processes."""
    work = partial(prepare_cloud, source, settings)
    if jobs == 1:
        yield from zip(entries, map(work, entries), strict=True)
        return
    kind = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(kind)
    if kind == "forkserver":
        context.set_forkserver_preload([__name__])
    pool = ProcessPoolExecutor(jobs, context, initializer=_leave_interrupts_to_the_parent)
    try:
        yield from zip(entries, pool.map(work, entries, chunksize=4), strict=True)
    except BrokenProcessPool as error:
        raise InputError("a process died, most likely for lack of memory. Try --jobs 1.") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# --- the folder ---


class SplitWriter:
    """Collects the clouds of one split and writes them, 2,048 to a file."""

    def __init__(self, folder: Path, split: str, label_type: type, features: tuple[str, ...]) -> None:
        self.folder, self.split, self.label_type, self.features = folder, split, label_type, features
        self.files: list[str] = []
        self.clouds: list[tuple[np.ndarray, int, str]] = []

    def add(self, points: np.ndarray, label: int, name: str) -> None:
        self.clouds.append((points, label, name))
        if len(self.clouds) == CLOUDS_PER_FILE:
            self.flush()

    def flush(self) -> None:
        if not self.clouds:
            return
        points, labels, names = zip(*self.clouds, strict=True)
        stem = f"ply_data_{self.split}{len(self.files)}"
        with h5py.File(self.folder / f"{stem}.h5", "w", locking=False) as file:
            stacked, at = np.stack(points), 3
            file.create_dataset("data", data=stacked[:, :, :3])
            for feature in self.features:
                file.create_dataset(ARRAYS[feature], data=stacked[:, :, at : at + FEATURES[feature]])
                at += FEATURES[feature]
            file.create_dataset("label", data=np.array(labels, self.label_type)[:, None])
        write_lines(self.folder / f"{stem}_names.txt", list(names))
        self.files.append(f"{stem}.h5")
        self.clouds = []
        write_lines(self.folder / f"{self.split}_files.txt", self.files)


def printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name)


def write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def unread(report: Report) -> str:
    """Return a sentence on the files that cannot be read, of which there are some."""
    return f"{len(report.skipped)} files cannot be read. The first: {report.skipped[0]['reason']}"


def prepare(source: Path, out: Path, settings: Settings, jobs: int = 1, strict: bool = False) -> Report:
    """Write the shapes of `source` as a folder in the HDF5 layout, complete or not at all.

    Args:
        source: a folder, or a zip file, which is read in place (see `find_entries`).
        out: the folder to write, which must not exist.
        settings: what the clouds shall be.
        jobs: processes; their number does not change the result.
        strict: stop at the first file that cannot be read, instead of leaving it out.

    Raises:
        InputError: the source cannot be used, `out` exists, a split would be empty, or train have one class alone.
    """
    if out.exists():
        raise InputError(f"{out} already exists. Choose another --out, or delete it first.")
    if not 1 <= settings.num_points <= MAX_POINTS or jobs < 1 or settings.seed < 0:
        raise InputError(
            f"--num-points {settings.num_points} must lie between 1 and {MAX_POINTS}, --jobs {jobs} be at least 1, and "
            f"--seed {settings.seed} at least 0."
        )
    check_axis(settings.up)
    listing = find_entries(source)
    entries = listing.entries
    splits = assign_splits(entries, settings)
    class_names = sorted({entry.class_name for entry in entries})
    labels = {name: label for label, name in enumerate(class_names)}
    for split in SPLITS:
        if not splits[split]:
            raise InputError(
                f"{source} has no {split} shapes. Give it {split} folders too, or none at all: then a share of each "
                "class, of two shapes or more, becomes test."
            )
    report = Report(class_names, listing)
    report.classes = {name: Counter() for name in [*class_names, *listing.empty]}
    for line in listing.left_out:
        if line["class"]:
            report.classes[line["class"]].update(["files", line["reason"]])
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as workspace:
        built = Path(workspace) / out.name
        built.mkdir()
        write_lines(built / "shape_names.txt", class_names)
        label_type = np.uint8 if len(class_names) <= 256 else np.uint16
        writers = {split: SplitWriter(built, split, label_type, settings.features) for split in SPLITS}
        split_of = {entry.path: split for split in SPLITS for entry in splits[split]}
        clouds = prepare_clouds(source, settings, entries, jobs)
        for entry, cloud in tqdm(clouds, total=len(entries), unit=" files", disable=None, dynamic_ncols=True):
            counts = report.classes[entry.class_name]
            counts["files"] += 1
            if isinstance(cloud, str):
                if strict:
                    raise InputError(cloud)
                counts["cannot be read"] += 1
                report.skipped.append({"file": str(entry.path), "reason": cloud})
                continue
            points, repeated, notes = cloud
            report.repeated += repeated
            report.notes += [{"file": str(entry.path), "note": note} for note in notes]
            counts[split_of[entry.path]] += 1
            report.written[split_of[entry.path]] += 1
            name = f"{entry.class_name}/{printable(entry.path.stem)}"
            writers[split_of[entry.path]].add(points, labels[entry.class_name], name)
        for split, writer in writers.items():
            writer.flush()
            if not writer.files:
                raise InputError(f"{source} gives no {split} cloud: {unread(report)}")
        trained = [name for name in class_names if report.classes[name]["train"]]
        if len(trained) < 2:
            raise InputError(
                f"{source} gives train clouds of one class alone, {trained[0]!r}: there is nothing to tell it from."
                + (f" {unread(report)}" if report.skipped else "")
            )
        recorded = vars(settings) | asdict(settings.frame)  # what `read_frame` looks for
        content = {"source": source.name, "settings": recorded, "skipped": report.skipped, "notes": report.notes}
        content |= {"left_out": listing.left_out, "empty_classes": listing.empty, "beside": dict(listing.beside)}
        content |= {"layout": listing.notes, "classes": {name: dict(n) for name, n in report.classes.items()}}
        (built / "prepare.json").write_text(json.dumps(content, indent=1) + "\n")
        built.rename(out)
    return report
