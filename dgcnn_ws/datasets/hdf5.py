"""One split's files in the layout of PointNet's modelnet40_ply_hdf5_2048, read and checked.

A folder holds `shape_names.txt` (class names, one a line; a label is the line's index), `train_files.txt` and
`test_files.txt` (file names in order) and the `*.h5` files with `data` float32 (n, points, 3) and `label`
uint8 (n, 1); maybe `normal` (n, points, 3), as ModelNet40's published files, `colour` (n, points, 3) and `intensity`
(n, points, 1). Nothing in these files is trusted: they come from mirrors.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from dgcnn_ws.datasets.frame import FEATURES, width_of
from dgcnn_ws.errors import InputError

ARRAYS = {"normals": "normal", "colour": "colour", "intensity": "intensity"}  # what a file calls each feature
LAYOUT_SUFFIX = "_ply_hdf5_2048"
# A header may declare any size. ModelNet40's larger split takes 242 MB: this leaves room for 17 times that.
MAX_SPLIT_BYTES = 4 << 30
TOO_LARGE = f"in memory it may be {MAX_SPLIT_BYTES}. Add --stream, which reads clouds as they are used"
MAX_COMPRESSION = 1100  # deflate reaches 1032 at most; a header that declares more has no data behind it
MAX_TEXT_BYTES = 1 << 20
ROUNDING, LOST = 2.0**-24, 1e-4  # of float32, in parts of a coordinate; and what a cloud may lose of its width


def read_lines(path: Path) -> list[str]:
    """The non-empty lines of a small text file, stripped."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise InputError(f"{path} is larger than {MAX_TEXT_BYTES} bytes, so it is not a list of names; replace it.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; replace it with the data set's own.") from error
    return [line.strip() for line in lines if line.strip()]


def can_name_classes(names: list[Any]) -> bool:
    """Whether `names` are printable words, at least one, and no two the same."""
    return (
        bool(names)
        and all(isinstance(name, str) and name.isprintable() for name in names)
        and len(set(names)) == len(names)
    )


def read_class_names(folder: Path) -> list[str]:
    """Class names in label order from `shape_names.txt`."""
    path = folder / "shape_names.txt"
    if not path.is_file():
        raise InputError(f"{path} is missing, so labels have no names; restore the file from the data set's archive.")
    names = read_lines(path)
    if not can_name_classes(names):
        raise InputError(f"{path} must list distinct printable class names, one a line; restore it from the archive.")
    return names


def list_files(folder: Path, split: str) -> list[Path]:
    """The HDF5 files of `train` or `test`, in the list's order, else in the order of their numbers."""
    listing = folder / f"{split}_files.txt"
    if listing.is_file():
        # Lists carry their author's directories. Base names alone also keep every read inside the folder.
        names = [re.split(r"[/\\]", line)[-1] for line in read_lines(listing)]
    else:
        numbered = [(re.fullmatch(rf"ply_data_{split}(\d+)\.h5", path.name), path) for path in folder.iterdir()]
        names = [path.name for _, path in sorted((int(match[1]), path) for match, path in numbered if match)]
    if not names:
        raise InputError(f"{folder} holds no {split} files (expected {split}_files.txt or ply_data_{split}0.h5).")
    if len(set(names)) < len(names):
        raise InputError(f"{listing} names a file twice, which would count its clouds twice; remove the repetition.")
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing though the {split} split needs it; fetch the data set again.")
    return [folder / name for name in names]


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open `path` read-only and turn whatever a damaged or foreign file makes h5py raise into InputError."""
    if not path.is_file():
        raise InputError(f"{path} is missing; restore it from the data set's archive.")
    try:
        with h5py.File(path, "r", locking=False) as file:  # network file systems may have none: "No locks available"
            yield file
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path} cannot be read as HDF5 ({reason}); make sure it is readable and complete, or replace it."
        ) from error


def own_dataset(file: h5py.File, name: str, kinds: str, in_memory: bool = True) -> h5py.Dataset:
    """The array `name`, stored in this very file; links, external and virtual storage read other files.

    Args:
        kinds: of numbers that it may hold, as NumPy's letters.
        in_memory: it is going to be read as a whole, which bounds its size.
    """
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
    largest = max(declared, chunk_bytes(array))
    bound = MAX_COMPRESSION * array.id.get_storage_size()
    if declared and largest > bound:
        raise InputError(f"{path}: `{name}` declares {largest} bytes, more than the {bound} it may; replace the file.")
    if in_memory and largest > MAX_SPLIT_BYTES:
        raise InputError(f"{path}: `{name}` is {largest} bytes; {TOO_LARGE}.")
    return array


def chunk_bytes(array: h5py.Dataset) -> int:
    """What a chunk takes in memory, which is read as a whole whatever is wanted of it; 0 without chunks."""
    return math.prod(array.chunks or (0,)) * array.dtype.itemsize


def point_arrays(file: h5py.File, features: Sequence[str], in_memory: bool = True) -> list[h5py.Dataset]:
    """The arrays of a file that hold its points, side by side: `data` (n, points, 3), and one for each feature."""
    arrays = [own_dataset(file, "data", "f", in_memory)]
    for feature in features:
        name, shape = ARRAYS[feature], (*arrays[0].shape[:2], FEATURES[feature])
        if name not in file.keys():  # noqa: SIM118 (`in file` follows links)
            raise InputError(
                f"{file.filename} has no {feature} (`{name}`): prepare the data set with --features {feature}, or "
                "train without."
            )
        arrays.append(own_dataset(file, name, "f", in_memory))
        if arrays[-1].shape != shape:
            raise InputError(f"{file.filename}: `{name}` has shape {arrays[-1].shape}, not {shape}; replace the file.")
    return arrays


def read_rows(arrays: list[h5py.Dataset], rows: slice, points: int | slice) -> np.ndarray:
    """Some points of some clouds out of `point_arrays`, features behind coordinates."""
    parts = [array[rows, points] for array in arrays]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def check_file(path: Path, num_points: int, in_memory: bool = True, features: Sequence[str] = ()) -> int:
    """The number of clouds in a file, from its header alone."""
    with open_hdf5(path) as file:
        data, label = own_dataset(file, "data", "f", in_memory), own_dataset(file, "label", "iu")
        if data.ndim != 3 or data.shape[2] != 3 or label.shape not in ((data.shape[0], 1), (data.shape[0],)):
            raise InputError(
                f"{path}: expected `data` (n, points, 3) and `label` (n, 1), found {data.shape} and "
                f"{label.shape}; replace the file."
            )
        if data.shape[1] < num_points:
            raise InputError(f"{path} stores {data.shape[1]} points a cloud; lower --num-points from {num_points}.")
        point_arrays(file, features, in_memory)
        return int(data.shape[0])


def fewest_points(files: Iterable[Path]) -> int:
    """The points that every cloud in files has, of which `check_file` lets each pass."""
    counts = []
    for path in files:
        with open_hdf5(path) as file:
            counts.append(int(own_dataset(file, "data", "f").shape[1]))
    return min(counts)


def read_clouds(
    files: list[Path], num_points: int, class_names: list[str], features: Sequence[str] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, num_points, 3 + D) float32 and labels (n,) int64 of all files, checked."""
    counts = [check_file(path, num_points, features=features) for path in files]
    width = 3 + width_of(features)
    size = sum(counts) * num_points * width * 4
    if size > MAX_SPLIT_BYTES:
        raise InputError(
            f"{files[0].parent}: a split of {sum(counts)} clouds is {size} bytes; {TOO_LARGE}, or lower --num-points."
        )
    points = np.empty((sum(counts), num_points, width), np.float32)
    labels = np.empty(sum(counts), np.int64)
    start = 0
    for path, count in zip(files, counts, strict=True):
        rows = slice(start, start + count)
        start += count
        if count == 0:
            continue
        with open_hdf5(path) as file:
            stored = read_rows(point_arrays(file, features), slice(None), slice(num_points))
        check_points(path, stored, 0)  # before what float32 rounds away is gone
        points[rows] = stored
        labels[rows] = read_labels(path, class_names)
    return points, labels


def sample_clouds(files: list[Path]) -> np.ndarray:
    """Some clouds (n, points, 3) of the files with all of their stored points: up to 8 in a row from 8 places."""
    counts = [check_file(path, 1, in_memory=False) for path in files]
    places = np.unique(np.linspace(0, max(sum(counts) - 8, 0), 8).astype(int))
    starts = np.cumsum([0, *counts])
    taken = []
    for path, start, end in zip(files, starts, starts[1:], strict=False):
        with open_hdf5(path) as file:
            data = own_dataset(file, "data", "f", in_memory=False)
            taken += [data[place - start : place - start + 8] for place in places[(places >= start) & (places < end)]]
    num_points = min(clouds.shape[1] for clouds in taken)
    return np.concatenate([clouds[:, :num_points] for clouds in taken])


def cloud_places(files: list[Path], rows: np.ndarray) -> list[tuple[str, int, str]]:
    """Return the file, the row in it and the shape's name of clouds, given where they lie (n,) over all files.

    Names stand a line a row in `<file>_names.txt`, as `prepare` writes them; they are empty where that does not fit.
    """
    places: list[tuple[str, int, str]] = []
    for path in files:
        count = check_file(path, 1, in_memory=False)
        listing = path.with_name(f"{path.stem}_names.txt")
        names = read_lines(listing) if listing.is_file() else []
        places += [(path.name, row, names[row] if len(names) == count else "") for row in range(count)]
    return [places[row] for row in rows.tolist()]


def read_labels(path: Path, class_names: list[str]) -> np.ndarray:
    """Labels (n,) int64 of a file, each with a class."""
    with open_hdf5(path) as file:
        labels = own_dataset(file, "label", "iu")[:].reshape(-1)
    known = (labels >= 0) & (labels < len(class_names))
    if not known.all():
        wrong = int(labels[known.argmin()])
        raise InputError(f"{path}: label {wrong} is outside the {len(class_names)} classes of shape_names.txt.")
    return labels.astype(np.int64)


def check_points(path: Path, points: np.ndarray, first: int) -> None:
    """Raise InputError where one of the clouds (b, num_points, C), the file's from `first` on, cannot be trained on.

    Its coordinates are not finite, or so far from the origin that float32 cannot hold its shape.
    """
    with np.errstate(over="ignore"):
        finite = np.isfinite(points.astype(np.float32, copy=False)).all(axis=(1, 2))  # as they will be
    if not finite.all():
        cloud = first + int(finite.argmin())
        raise InputError(f"{path}: cloud {cloud} has NaN or infinite coordinates; replace the file.")
    largest, smallest = points[..., :3].max(axis=1), points[..., :3].min(axis=1)
    extent, distance = (largest - smallest).max(axis=1), np.maximum(np.abs(largest), np.abs(smallest)).max(axis=1)
    lost = (extent > 0) & (distance * ROUNDING > LOST * extent)
    if lost.any():
        cloud = int(lost.argmax())
        raise InputError(
            f"{path}: cloud {first + cloud} is {extent[cloud]:.3g} wide, {distance[cloud]:.3g} from the origin, "
            "where 32 bits do not hold its shape; store each cloud less its mean."
        )
