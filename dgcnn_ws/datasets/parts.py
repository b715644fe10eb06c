"""Clouds whose points are labelled too, each with the part of the object that it lies on."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dgcnn_ws.datasets.built_in.shapes import Shapes
from dgcnn_ws.datasets.hdf5 import list_files, open_hdf5, own_dataset, read_lines
from dgcnn_ws.datasets.modelnet import HDF5Clouds, PointClouds
from dgcnn_ws.errors import InputError

PART_DATASETS: dict[str, type[HDF5Clouds]] = {"shapes": Shapes}


class PartClouds(PointClouds):
    """Labelled point clouds with the part of every point. A cloud's class is its category.

    Args:
        clouds: the clouds and their categories.
        parts: (n, num_points) int64 indices into `part_names`.
        part_names: one name per part; categories may share parts.
        category_parts: (categories, parts) bool, which parts a category has.

    Raises:
        InputError: shapes disagree, or a part has no name.
    """

    def __init__(self, clouds: PointClouds, parts: Tensor, part_names: list[str], category_parts: Tensor) -> None:
        super().__init__(clouds.points, clouds.labels, clouds.class_names, clouds.split)
        if parts.shape != self.points.shape[:2] or category_parts.shape != (self.num_classes, len(part_names)):
            raise InputError(
                f"Parts of shape {tuple(parts.shape)} and a table {tuple(category_parts.shape)} do not fit points "
                f"{tuple(self.points.shape)}, {self.num_classes} categories and {len(part_names)} part names."
            )
        if parts.min() < 0 or parts.max() >= len(part_names):
            raise InputError(f"A point's part is outside 0..{len(part_names) - 1}: {len(part_names)} parts have names.")
        self.parts, self.part_names, self.category_parts = parts, part_names, category_parts
        self.frame = clouds.frame

    @property
    def targets(self) -> Tensor:
        """(n, 1 + num_points) int64: the cloud's category, then the part of each point."""
        return torch.cat([self.labels.unsqueeze(1), self.parts], dim=1)


def load_parts(name: str, root: str | Path = "data", split: str = "train", num_points: int = 1024) -> PartClouds:
    """A split of the data set called `name` with the part of every point. Arguments as for `load_dataset`.

    A category has the parts that occur in its training clouds, whatever the split.

    Raises:
        InputError: the data set knows no parts, or cannot be read.
    """
    if name not in PART_DATASETS:
        raise InputError(f"The data set {name!r} knows no parts; choose one of {', '.join(PART_DATASETS)}.")
    clouds = PART_DATASETS[name](root, split, num_points)
    folder = clouds.locate(root)
    part_names = read_lines(folder / "part_names.txt")
    labels, train_parts = read_parts(folder, "train", len(clouds.class_names), len(part_names))
    table = np.zeros((clouds.num_classes, len(part_names)), bool)
    table[labels[:, None], train_parts] = True
    parts = train_parts
    if split == "test":
        _, parts = read_parts(folder, "test", len(clouds.class_names), len(part_names))
    chosen = torch.from_numpy(parts[clouds.rows, :num_points].astype(np.int64))
    return PartClouds(clouds, chosen, part_names, torch.from_numpy(table))


def read_parts(folder: Path, split: str, num_classes: int, num_parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and parts (n, stored points) of `train` or `test`, all with a name."""
    labels, parts = [], []
    for path in list_files(folder, split):
        with open_hdf5(path) as file:
            labels.append(own_dataset(file, "label", "u")[:].reshape(-1))
            parts.append(own_dataset(file, "part", "u")[:])
            shape = own_dataset(file, "data", "f").shape[:2]
        if len(labels[-1]) != shape[0] or parts[-1].shape != shape:
            raise InputError(f"{path}: `part` {parts[-1].shape} does not fit `data` {shape}; replace the file.")
        if labels[-1].max(initial=0) >= num_classes or parts[-1].max(initial=0) >= num_parts:
            raise InputError(f"{path} holds a label or a part without a name; replace the file.")
    return np.concatenate(labels), np.concatenate(parts)
