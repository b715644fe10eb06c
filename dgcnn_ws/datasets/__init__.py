"""Point-cloud data sets by name."""

from pathlib import Path
from typing import Any

from dgcnn_ws.datasets.built_in.shapes import Shapes
from dgcnn_ws.datasets.modelnet import (
    FolderClouds,
    HDF5Clouds,
    LabelledClouds,
    ModelNet10,
    ModelNet40,
    PointClouds,
)
from dgcnn_ws.datasets.parts import PART_DATASETS, PartClouds, load_parts
from dgcnn_ws.datasets.stream import StreamedClouds
from dgcnn_ws.errors import InputError

__all__ = [
    "DATASETS",
    "PART_DATASETS",
    "FolderClouds",
    "HDF5Clouds",
    "LabelledClouds",
    "ModelNet10",
    "ModelNet40",
    "PartClouds",
    "PointClouds",
    "Shapes",
    "StreamedClouds",
    "find_dataset",
    "load_dataset",
    "load_parts",
    "stream_dataset",
]

DATASETS: dict[str, type[HDF5Clouds]] = {
    "shapes": Shapes,
    "modelnet10": ModelNet10,
    "modelnet40": ModelNet40,
    "folder": FolderClouds,
}


def load_dataset(
    name: str, root: str | Path = "data", split: str = "train", num_points: int = 1024, **options: Any
) -> HDF5Clouds:
    """A split of the data set called `name` (a key of `DATASETS`).

    Args:
        name: `shapes`, `modelnet10`, `modelnet40`, or `folder` for whatever lies at `root`.
        root: data root, or the data set's own folder.
        split: `train`, `val`, `trainval` or `test`.
        num_points: points per cloud.
        options: `val_fraction` and `split_seed` of `HDF5Clouds`.

    Raises:
        InputError: there is no such data set, or it cannot be read.
    """
    return find_dataset(name)(root, split, num_points, **options)


def stream_dataset(
    name: str,
    root: str | Path = "data",
    split: str = "train",
    num_points: int = 1024,
    buffer_bytes: int = 256 * 10**6,
    **options: Any,
) -> StreamedClouds:
    """The same split, read from its files while it is used; `buffer_bytes` as for `StreamedClouds`."""
    return StreamedClouds(find_dataset(name).locate(root), split, num_points, buffer_bytes, **options)


def find_dataset(name: str) -> type[HDF5Clouds]:
    """The class of the data set called `name`; InputError where there is none."""
    if name == "given":
        raise InputError("These clouds were given by a program, which alone has them; name a data set with --dataset.")
    if name not in DATASETS:
        raise InputError(f"There is no data set {name!r}; choose one of {', '.join(DATASETS)}.")
    return DATASETS[name]
