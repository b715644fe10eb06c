"""ModelNet point clouds from HDF5 files, in the layout of PointNet's modelnet40_ply_hdf5_2048.

A folder holds `shape_names.txt` (class names, one a line; a label is the line's index), `train_files.txt` and
`test_files.txt` (file names in order) and the `*.h5` files with `data` float32 (n, points, 3) and `label`
uint8 (n, 1). Nothing in these files is trusted: they come from mirrors.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dgcnn_ws.errors import InputError

SPLITS = ("train", "val", "trainval", "test")
LAYOUT_SUFFIX = "_ply_hdf5_2048"
# A header may declare any size. ModelNet40's larger split takes 242 MB: this leaves room for 17 times that.
MAX_SPLIT_BYTES = 4 << 30
MAX_COMPRESSION = 1100  # deflate reaches 1032 at most; a header that declares more has no data behind it
MAX_TEXT_BYTES = 1 << 20


class PointClouds(Dataset[tuple[Tensor, int]]):
    """Labelled point clouds of one size, in memory.

    Args:
        points: (n, num_points, 3) float32 coordinates.
        labels: (n,) int64 indices into `class_names`.
        class_names: one name per class.
        split: what part of a data set this is, for messages.

    Raises:
        InputError: shapes disagree, or there is no cloud.
    """

    def __init__(self, points: Tensor, labels: Tensor, class_names: list[str], split: str = "train") -> None:
        if points.ndim != 3 or points.shape[2] != 3 or labels.shape != points.shape[:1]:
            raise InputError(
                f"Point clouds need points (n, num_points, 3) and labels (n,); "
                f"got {tuple(points.shape)} and {tuple(labels.shape)}."
            )
        if points.shape[0] == 0 or points.shape[1] == 0:
            raise InputError(
                f"The {split} split holds no points (shape {tuple(points.shape)}); choose another split."
            )
        self.points = points.to(torch.float32)
        self.labels = labels.to(torch.int64)
        self.class_names = class_names
        self.split = split

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_points(self) -> int:
        return self.points.shape[1]

    def __len__(self) -> int:
        return self.points.shape[0]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.points[index], int(self.labels[index])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.split}: {len(self)} clouds of {self.num_points} points, "
            f"{self.num_classes} classes)"
        )


class HDF5Clouds(PointClouds):
    """A split of a data set in the HDF5 layout, the first `num_points` stored points of each cloud.

    Args:
        root: the data root that holds `folder`, or the layout folder itself.
        split: `train` (without validation), `val`, `trainval` (all of train) or `test`.
        num_points: points per cloud, at most as many as are stored (2,048).
        val_fraction: share of each class's training clouds that becomes validation.
        split_seed: the one thing, with `val_fraction`, that decides which clouds those are.

    Raises:
        InputError: the folder or a file is missing, or a file's contents cannot be used.
    """

    folder: str
    command: str | None = None  # the name that `python main.py download` knows this data set by

    def __init__(
        self,
        root: str | Path = "data",
        split: str = "train",
        num_points: int = 1024,
        val_fraction: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        if split not in SPLITS:
            raise InputError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
        if num_points < 1:
            raise InputError(f"num_points={num_points} leaves no cloud; ask for at least 1 point.")
        folder = self.locate(root)
        class_names = read_class_names(folder)
        files = list_files(folder, "test" if split == "test" else "train")
        points, labels = read_clouds(files, num_points, class_names)
        if split in ("train", "val"):
            is_val = validation_mask(labels, val_fraction, split_seed)
            chosen = is_val if split == "val" else ~is_val
            points, labels = points[chosen], labels[chosen]
        super().__init__(torch.from_numpy(points), torch.from_numpy(labels), class_names, split)

    @classmethod
    def find(cls, root: str | Path) -> Path | None:
        """The layout folder at or under `root`, or None."""
        root = Path(root).expanduser()
        if (root / cls.folder).is_dir():
            return root / cls.folder
        # Another data set's folder must not be read under this one's name.
        is_another = root.name.endswith(LAYOUT_SUFFIX) and root.name != cls.folder
        return root if (root / "shape_names.txt").is_file() and not is_another else None

    @classmethod
    def locate(cls, root: str | Path) -> Path:
        """The layout folder at or under `root`; InputError with the ways out where there is none."""
        folder = cls.find(root)
        if folder is None:
            fetch = f", fetch it with `python main.py download {cls.command}`" if cls.command else ""
            raise InputError(
                f"{cls.__name__} is not at {Path(root).expanduser() / cls.folder}: say where it is with "
                f"--data-root{fetch}, or use --dataset shapes, which needs no files."
            )
        return folder


class ModelNet40(HDF5Clouds):
    """ModelNet40 as HDF5: 9,840 training and 2,468 test clouds of 40 classes (Wu et al., 2015)."""

    folder = "modelnet40" + LAYOUT_SUFFIX
    command = "modelnet40"


class ModelNet10(HDF5Clouds):
    """ModelNet10, the ten-class part of ModelNet40, in the same layout."""

    folder = "modelnet10" + LAYOUT_SUFFIX


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a small text file, stripped."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise InputError(
            f"{path} is larger than {MAX_TEXT_BYTES} bytes, so it is not a list of names; replace it."
        )
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; replace it with the data set's own.") from error
    return [line.strip() for line in lines if line.strip()]


def read_class_names(folder: Path) -> list[str]:
    """Class names in label order from `shape_names.txt`."""
    path = folder / "shape_names.txt"
    if not path.is_file():
        raise InputError(
            f"{path} is missing, so labels have no names; restore the file from the data set's archive."
        )
    names = read_lines(path)
    if not names or len(set(names)) < len(names) or not all(name.isprintable() for name in names):
        raise InputError(
            f"{path} must list distinct printable class names, one a line; restore it from the archive."
        )
    return names


def list_files(folder: Path, split: str) -> list[Path]:
    """The HDF5 files of `train` or `test`, in the list's order, else in the order of their numbers."""
    listing = folder / f"{split}_files.txt"
    if listing.is_file():
        # Lists carry their author's directories. Base names alone also keep every read inside the folder.
        names = [re.split(r"[/\\]", line)[-1] for line in read_lines(listing)]
    else:
        numbered = [
            (re.fullmatch(rf"ply_data_{split}(\d+)\.h5", path.name), path) for path in folder.iterdir()
        ]
        names = [path.name for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]
    if not names:
        raise InputError(
            f"{folder} holds no {split} files (expected {split}_files.txt or ply_data_{split}0.h5)."
        )
    if len(set(names)) < len(names):
        raise InputError(
            f"{listing} names a file twice, which would count its clouds twice; remove the repetition."
        )
    for name in names:
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name} is missing though the {split} split needs it; fetch the data set again."
            )
    return [folder / name for name in names]


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open `path` read-only and turn whatever a damaged or foreign file makes h5py raise into InputError."""
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path} cannot be read as HDF5 ({reason}); make sure it is readable and complete, or replace it."
        ) from error


def own_dataset(file: h5py.File, name: str, kinds: str) -> h5py.Dataset:
    """The array `name`, stored in this very file; links, external and virtual storage read other files."""
    path = file.filename
    link = file.get(name, getlink=True) if name in file.keys() else None  # noqa: SIM118 (`in file` follows links)
    if link is None:
        raise InputError(f"{path} has no `{name}`; it is not a file of this layout, replace it.")
    if not isinstance(link, h5py.HardLink):
        raise InputError(f"{path}: `{name}` is a link to somewhere else, which is refused; replace the file.")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.dtype.kind not in kinds:
        raise InputError(f"{path}: `{name}` is not an array of the expected type; replace the file.")
    if array.is_virtual or array.external:
        raise InputError(f"{path}: `{name}` is stored in other files, which is refused; replace the file.")
    declared = math.prod(array.shape) * array.dtype.itemsize
    largest = max(declared, math.prod(array.chunks or (0,)) * array.dtype.itemsize)  # a chunk is read whole
    bound = min(MAX_SPLIT_BYTES, MAX_COMPRESSION * array.id.get_storage_size())
    if declared and largest > bound:
        raise InputError(
            f"{path}: `{name}` declares {largest} bytes, more than the {bound} it may; replace the file."
        )
    return array


def check_file(path: Path, num_points: int) -> int:
    """The number of clouds in a file, from its header alone."""
    with open_hdf5(path) as file:
        data, label = own_dataset(file, "data", "f"), own_dataset(file, "label", "iu")
        if data.ndim != 3 or data.shape[2] != 3 or label.shape not in ((data.shape[0], 1), (data.shape[0],)):
            raise InputError(
                f"{path}: expected `data` (n, points, 3) and `label` (n, 1), found {data.shape} and "
                f"{label.shape}; replace the file."
            )
        if data.shape[1] < num_points:
            raise InputError(
                f"{path} stores {data.shape[1]} points a cloud; lower --points from {num_points}."
            )
        return int(data.shape[0])


def read_clouds(files: list[Path], num_points: int, class_names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, num_points, 3) float32 and labels (n,) int64 of all files, checked."""
    counts = [check_file(path, num_points) for path in files]
    if sum(counts) * num_points * 12 > MAX_SPLIT_BYTES:
        raise InputError(
            f"{files[0].parent}: {sum(counts)} clouds need more than {MAX_SPLIT_BYTES} bytes; lower --points."
        )
    points = np.empty((sum(counts), num_points, 3), np.float32)
    labels = np.empty(sum(counts), np.int64)
    start = 0
    for path, count in zip(files, counts, strict=True):
        rows = slice(start, start + count)
        start += count
        if count == 0:
            continue
        with open_hdf5(path) as file:
            points[rows] = own_dataset(file, "data", "f")[:, :num_points]
            labels[rows] = own_dataset(file, "label", "iu")[:].reshape(-1)
        finite = np.isfinite(points[rows]).all(axis=(1, 2))
        if not finite.all():
            raise InputError(
                f"{path}: cloud {int(finite.argmin())} has NaN or infinite coordinates; replace the file."
            )
        known = (labels[rows] >= 0) & (labels[rows] < len(class_names))
        if not known.all():
            wrong = int(labels[rows][known.argmin()])
            raise InputError(
                f"{path}: label {wrong} is outside the {len(class_names)} classes of shape_names.txt."
            )
    return points, labels


def validation_mask(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which clouds are validation: a share of every class, at least one in and one out where a class has two.

    Args:
        labels: (n,) class of every training cloud, in stored order.
        fraction: share of a class, between 0 and 1 exclusive.
        seed: non-negative.
    """
    if not 0 < fraction < 1:
        raise InputError(
            f"val_fraction={fraction} must lie between 0 and 1; for no validation use split 'trainval'."
        )
    if seed < 0:
        raise InputError(f"split_seed={seed} must not be negative.")
    generator = np.random.Generator(np.random.PCG64(seed))
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        mask[generator.permutation(members)[:count]] = True
    return mask
