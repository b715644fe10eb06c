"""What a data set in the HDF5 layout holds: counts, bounds, and clouds that occur more than once."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgcnn_ws.datasets.hdf5 import check_file, fewest_points, list_files, read_class_names, read_clouds
from dgcnn_ws.datasets.modelnet import validation_mask

STORED = ("train", "test")  # the splits that have files; validation is drawn from train


@dataclass(frozen=True)
class StoredSplit:
    """All clouds of a split as stored.

    Args:
        points: (n, num_points, 3) float32.
        labels: (n,) int64.
        places: file and row of each cloud, such as `ply_data_test0.h5[17]`.
    """

    points: np.ndarray
    labels: np.ndarray
    places: list[str]


def read_stored(folder: Path) -> tuple[dict[str, StoredSplit], list[str]]:
    """Train and test of a layout folder with all points that every cloud of both has, and the class names."""
    class_names = read_class_names(folder)
    files = {split: list_files(folder, split) for split in STORED}
    counts = {path: check_file(path, 1) for split in STORED for path in files[split]}
    num_points = fewest_points(counts)
    splits = {}
    for split in STORED:
        points, labels = read_clouds(files[split], num_points, class_names)
        places = [f"{path.name}[{row}]" for path in files[split] for row in range(counts[path])]
        splits[split] = StoredSplit(points, labels, places)
    return splits, class_names


def count_classes(splits: dict[str, StoredSplit], class_names: list[str]) -> dict[str, dict[str, int]]:
    """Clouds of each class in `train`, `val` (the stratified tenth that is drawn from train) and `test`."""
    labels = splits["train"].labels
    is_val = validation_mask(labels, 0.1, 0)
    parts = {"train": labels[~is_val], "val": labels[is_val], "test": splits["test"].labels}
    tables = {part: np.bincount(chosen, minlength=len(class_names)).tolist() for part, chosen in parts.items()}
    return {name: {part: table[i] for part, table in tables.items()} for i, name in enumerate(class_names)}


def bounds(split: StoredSplit) -> dict[str, Any] | None:
    """Extremes of the coordinates, the radius and the mean over a split's clouds; None where there is no cloud.

    The radius of a cloud is its farthest point's distance from the origin, its offset that of its mean.
    """
    if not len(split.points):
        return None
    radius = [float(np.linalg.norm(cloud.astype(np.float64), axis=1).max()) for cloud in split.points]
    offset = np.linalg.norm(split.points.mean(1, dtype=np.float64), axis=1)
    return {
        "min": split.points.min((0, 1)).tolist(),
        "max": split.points.max((0, 1)).tolist(),
        "radius": [min(radius), max(radius)],
        "largest_offset": float(offset.max()),
    }


@dataclass(frozen=True)
class Duplicates:
    """Clouds that hold exactly the same points, in any order.

    Args:
        clouds: split, place and label of each cloud that is the same as the others.
    """

    clouds: list[tuple[str, str, int]]

    @property
    def splits(self) -> set[str]:
        return {split for split, _, _ in self.clouds}

    @property
    def has_two_labels(self) -> bool:
        return len({label for _, _, label in self.clouds}) > 1


def find_duplicates(splits: dict[str, StoredSplit]) -> list[Duplicates]:
    """Groups of clouds with the same points, bit for bit and as often, in whatever order.

    The same object sampled anew has other points; this does not find it.
    """
    groups: dict[bytes, list[tuple[str, str, int]]] = defaultdict(list)
    for name, split in splits.items():
        for points, label, place in zip(split.points, split.labels.tolist(), split.places, strict=True):
            groups[fingerprint(points)].append((name, place, label))
    return [Duplicates(clouds) for clouds in groups.values() if len(clouds) > 1]


def fingerprint(points: np.ndarray) -> bytes:
    """A hash of a cloud (num_points, 3) float32 that does not depend on the order of its points."""
    points = points + np.float32(0)  # -0 becomes 0, its equal
    return hashlib.blake2b(points[np.lexsort(points.T)].tobytes(), digest_size=16).digest()
