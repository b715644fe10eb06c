"""Labelled point clouds in memory, and ModelNet's splits of them read from HDF5 files."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dgcnn_ws.datasets.frame import Frame, channels_of, frame_of_clouds, read_frame, width_of
from dgcnn_ws.datasets.hdf5 import LAYOUT_SUFFIX, list_files, read_class_names, read_clouds, sample_clouds
from dgcnn_ws.errors import InputError

SPLITS = ("train", "val", "trainval", "test")


class LabelledClouds(Dataset[tuple[Tensor, int]]):
    """Labelled point clouds of one size, wherever their points lie.

    Args:
        labels: (n,) int64 indices into `class_names`.
        class_names: one name per class.
        split: what part of a data set this is, for messages.
    """

    frame: Frame | None = None  # how shapes became these clouds, where that is known
    features: tuple[str, ...] = ()  # what a point has beside its coordinates, in its next channels

    def __init__(self, labels: Tensor, class_names: list[str], split: str) -> None:
        self.labels = labels.to(torch.int64)
        self.class_names = class_names
        self.split = split

    @property
    def targets(self) -> Tensor:
        """(n, ...) int64, what a network learns to say of each cloud: its label."""
        return self.labels

    def fingerprint(self) -> str:
        """Return a word that other clouds, labels or class names would change."""
        shape = torch.Size((len(self), self.num_points, self.width))
        digest = hashlib.sha256(repr((self.class_names, shape)).encode())
        for part in (*self.first_points(), self.labels):
            digest.update(part.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def first_points(self) -> Iterator[Tensor]:
        """Yield the first point of every cloud, some clouds (b, C) at a time."""
        raise NotImplementedError

    def read(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the clouds (b, num_points, C) of each of the `chosen` (b,) indices."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Channels of a point, C: 3 of coordinates, and those of the features."""
        return 3 + width_of(self.features)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_points(self) -> int:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        (points,) = self.read([torch.tensor([index])])
        return points[0], int(self.labels[index])

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.split}: {len(self)} clouds of {self.num_points} points, "
            f"{self.num_classes} classes)"
        )


class PointClouds(LabelledClouds):
    """Labelled point clouds of one size, in memory.

    Args:
        points: (n, num_points, C) float32: coordinates, then features.
        labels: (n,) int64 indices into `class_names`.
        class_names: one name per class.
        split: what part of a data set this is, for messages.
        features: some of `frame.FEATURES`, in their order.

    Raises:
        InputError: shapes disagree, or there is no cloud.
    """

    def __init__(
        self,
        points: Tensor,
        labels: Tensor,
        class_names: list[str],
        split: str = "train",
        features: tuple[str, ...] = (),
    ) -> None:
        self.features = features
        if points.ndim != 3 or points.shape[2] != self.width or labels.shape != points.shape[:1]:
            raise InputError(
                f"Point clouds need points (n, num_points, {self.width}) and labels (n,); "
                f"got {tuple(points.shape)} and {tuple(labels.shape)}."
            )
        if points.shape[0] == 0 or points.shape[1] == 0:
            raise InputError(f"The {split} split holds no points (shape {tuple(points.shape)}); choose another split.")
        super().__init__(labels, class_names, split)
        self.points = points.to(torch.float32)

    @property
    def num_points(self) -> int:
        return self.points.shape[1]

    def first_points(self) -> Iterator[Tensor]:
        yield self.points[:, 0]

    def read(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        return (self.points[rows] for rows in chosen)


class HDF5Clouds(PointClouds):
    """A split of a data set in the HDF5 layout, the first `num_points` stored points of each cloud.

    Args:
        root: the data root that holds `folder`, or the layout folder itself.
        split: `train` (without validation), `val`, `trainval` (all of train) or `test`.
        num_points: points per cloud, at most as many as are stored (2,048).
        val_fraction: share of each class's training clouds that becomes validation.
        split_seed: the one thing, with `val_fraction`, that decides which clouds those are.
        features: what to read beside coordinates, some of `normals`, `colour` and `intensity` in this order.

    Raises:
        InputError: the folder or a file is missing, or a file's contents cannot be used.
    """

    folder: str
    way_in: str = "Put its folder there"

    def __init__(
        self,
        root: str | Path = "data",
        split: str = "train",
        num_points: int = 1024,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        features: tuple[str, ...] = (),
    ) -> None:
        check_request(split, num_points)
        folder = self.locate(root)
        class_names = read_class_names(folder)
        self.files = list_files(folder, "test" if split == "test" else "train")
        points, labels = read_clouds(self.files, num_points, class_names, features)
        self.rows = split_rows(labels, split, val_fraction, split_seed)
        if split in ("train", "val"):
            points, labels = points[self.rows], labels[self.rows]
        super().__init__(torch.from_numpy(points), torch.from_numpy(labels), class_names, split, features)
        self.frame = frame_of_folder(folder, self.files, features)

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
            raise InputError(
                f"{cls.__name__} is not at {Path(root).expanduser() / cls.folder}. {cls.way_in}, name the "
                "folder that holds it with --data-root, or use --dataset shapes, which needs no files."
            )
        return folder


class ModelNet40(HDF5Clouds):
    """ModelNet40 as HDF5: 9,840 training and 2,468 test clouds of 40 classes (Wu et al., 2015)."""

    folder = "modelnet40" + LAYOUT_SUFFIX
    way_in = "Fetch it with `dgcnn-ws download modelnet40`"


class ModelNet10(HDF5Clouds):
    """ModelNet10, the ten-class part of ModelNet40, in the same layout."""

    folder = "modelnet10" + LAYOUT_SUFFIX


class FolderClouds(HDF5Clouds):
    """Any folder in the same layout, which the data root then is: your own shapes (`dgcnn-ws prepare`)."""

    @classmethod
    def find(cls, root: str | Path) -> Path | None:
        """`root`, or None where it is no layout folder."""
        root = Path(root).expanduser()
        return root if (root / "shape_names.txt").is_file() else None

    @classmethod
    def locate(cls, root: str | Path) -> Path:
        """`root`; InputError with the way out where it is no layout folder."""
        folder = cls.find(root)
        if folder is None:
            raise InputError(f"{root} holds no data set: shape_names.txt is missing. Make one with dgcnn-ws prepare.")
        return folder


def frame_of_folder(folder: Path, files: list[Path], features: tuple[str, ...] = ()) -> Frame:
    """How shapes became the clouds in a layout folder's files: as `prepare` says, else as its name and they do.

    Args:
        features: those that are read, of those stored.
    """
    frame = read_frame(folder) or frame_of_clouds(sample_clouds(files), mirrored=folder.name == ModelNet40.folder)
    return replace(frame, channels=channels_of(features))


def check_request(split: str, num_points: int) -> None:
    """Raise InputError for a split that does not exist, or clouds without points."""
    if split not in SPLITS:
        raise InputError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if num_points < 1:
        raise InputError(f"num_points={num_points} leaves no cloud; ask for at least 1 point.")


def split_rows(labels: np.ndarray, split: str, val_fraction: float, split_seed: int) -> np.ndarray:
    """Where the split's clouds lie among those of its files, given the labels (n,) of all of them; ascending."""
    if split not in ("train", "val"):
        return np.arange(len(labels))
    is_val = validation_mask(labels, val_fraction, split_seed)
    return np.flatnonzero(is_val if split == "val" else ~is_val)


def validation_mask(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which clouds are validation: a share of every class, at least one in and one out where a class has two.

    Args:
        labels: (n,) class of every training cloud, in stored order.
        fraction: share of a class, between 0 and 1 exclusive.
        seed: non-negative.
    """
    if not 0 < fraction < 1:
        raise InputError(f"val_fraction={fraction} must lie between 0 and 1; for no validation use split 'trainval'.")
    if seed < 0:
        raise InputError(f"split_seed={seed} must not be negative.")
    generator = np.random.Generator(np.random.PCG64(seed))
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        mask[generator.permutation(members)[:count]] = True
    return mask
