"""One shape from one file, read within bounds."""

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import numpy as np

from dgcnn_ws.datasets.formats.arrays import read_npy, read_npz
from dgcnn_ws.datasets.formats.by_library.e57 import read_e57
from dgcnn_ws.datasets.formats.by_library.las import read_las
from dgcnn_ws.datasets.formats.by_library.step import read_iges, read_step
from dgcnn_ws.datasets.formats.gltf import embed_buffers, read_gltf
from dgcnn_ws.datasets.formats.obj import read_obj
from dgcnn_ws.datasets.formats.off import read_off
from dgcnn_ws.datasets.formats.pcd import read_pcd
from dgcnn_ws.datasets.formats.ply import read_ply
from dgcnn_ws.datasets.formats.polygons import Shape
from dgcnn_ws.datasets.formats.stl import read_stl
from dgcnn_ws.datasets.formats.tables import read_text
from dgcnn_ws.datasets.formats.threemf import read_3mf
from dgcnn_ws.datasets.formats.vrml import read_vrml
from dgcnn_ws.errors import InputError
from dgcnn_ws.memory_bound import memory_bound

READERS: dict[str, Callable[[bytes], Shape]] = {
    ".off": read_off,
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": read_stl,
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".npy": read_npy,
    ".npz": read_npz,
    ".xyz": read_text,
    ".txt": read_text,
    ".pts": read_text,
    ".asc": read_text,
    ".csv": read_text,
    ".3mf": read_3mf,
    ".wrl": read_vrml,
    ".step": read_step,
    ".stp": read_step,
    ".iges": read_iges,
    ".igs": read_iges,
    ".pcd": read_pcd,
    ".las": read_las,
    ".laz": read_las,
    ".e57": read_e57,
}
# What programs keep for themselves, as patterns, and what to export instead.
EXPORTS = {
    r"sldprt|sldasm|ipt|iam|prt|catpart|par|f3d|fcstd|x_t|x_b|sat|3dm|dwg|dxf": "export it as .step",
    r"blend|fbx|dae|max|m[ab]|c4d|usd[azc]?|abc|x3d|3ds|skp": "export it as .glb",
    r"rc[ps]|fls|ptx|zfs|imp": "export it as .e57",
    r"gz|bz2|xz|7z|rar|tar|zip|tgz": "unpack it",
}
# Of these, colours, intensities and a cloud's normals are read too; of every mesh, the normals of its triangles.
WITH_FEATURES: dict[str, Callable[[bytes, Sequence[str]], Shape]] = {
    ".ply": read_ply,
    ".npy": read_npy,
    ".npz": read_npz,
    **dict.fromkeys((".xyz", ".txt", ".pts", ".asc", ".csv"), read_text),
    ".pcd": read_pcd,
    ".las": read_las,
    ".laz": read_las,
}
MAX_FILE_BYTES = 1 << 29
MAX_MEMORY_BYTES = 4 << 30


class ShapeWarning(UserWarning):
    """A shape was read, but not all of what its file holds."""


def read_bytes(path: Path) -> bytes:
    """A file's contents. Raises InputError where it is missing, unreadable or larger than `MAX_FILE_BYTES`."""
    try:
        if path.is_file():
            with open(path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            return with_its_buffers(check_size(data, path), path, lambda name: read_bytes(path.parent / name))
        reason = "there is no such file"
    except OSError as error:
        reason = error.strerror or str(error)
    raise InputError(f"{path} cannot be read ({reason}).")


def with_its_buffers(data: bytes, name: PurePath, read: Callable[[PurePath], bytes]) -> bytes:
    """A .gltf with the files inside that it names in its own folder, of which `read` gives the bytes; others as is."""
    return check_size(embed_buffers(data, read), name) if name.suffix.lower() == ".gltf" else data


def check_size(data: bytes, name: PurePath) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{name} is larger than the {MAX_FILE_BYTES >> 20} MiB that a shape may have.")
    return data


def load_shape(data: bytes, name: PurePath, features: Sequence[str] = ()) -> Shape:
    """The triangles (T, 3, 3) or, of a cloud, points (N, 3) float64 in a file.

    With features, (T, 3, 3 + D) or (N, 3 + D): behind the coordinates what each feature has there, but of triangles no
    normals, which follow from their corners.

    Takes at most `MAX_MEMORY_BYTES` above what the process holds (enforced on Linux), and follows no reference to
    another file.

    Args:
        data: the file's contents.
        name: its name, whose ending says what format they have.
        features: some of `frame.FEATURES`, in their order.

    Raises:
        InputError: the format is unknown, the file damaged, empty or too large, a feature missing, or a number not
            finite.
    """
    try:
        with memory_bound(MAX_MEMORY_BYTES), np.errstate(all="ignore"):
            return read_shape(data, name, features)
    except MemoryError as error:
        raise InputError(f"{name} needs more than {MAX_MEMORY_BYTES >> 30} GiB to be read; simplify it.") from error


def not_read(ending: str) -> str:
    """Why a file of this ending is not read, and where that is known what to do."""
    advice = (words for pattern, words in EXPORTS.items() if re.fullmatch(pattern, ending[1:].lower()))
    return ": ".join([f"{ending.lower()} is not read", *advice])


def read_shape(data: bytes, name: PurePath, features: Sequence[str] = ()) -> Shape:
    """As `load_shape`, without its bound on memory. Raises InputError, MemoryError."""
    reader = READERS.get(name.suffix.lower())
    if reader is None:
        reason = not_read(name.suffix) if name.suffix else "its name has no ending"
        raise InputError(f"{name}: {reason}. Read are {', '.join(READERS)}.")
    if not data:
        raise InputError(f"{name} is empty: it has 0 bytes.")
    reads_features = bool(features) and name.suffix.lower() in WITH_FEATURES
    try:
        shape = WITH_FEATURES[name.suffix.lower()](data, features) if reads_features else reader(data)
    except MemoryError:
        raise
    except Exception as error:  # readers meet arbitrary bytes with any exception
        raise InputError(f"{name} cannot be read as {name.suffix} ({_reason(error)}).") from error
    if len(shape) == 0:
        raise InputError(f"{name} holds neither triangles nor points.")
    if not reads_features:
        missing = [feature for feature in features if shape.ndim == 2 or feature != "normals"]
        if missing:
            raise InputError(f"{name}: {missing[0]} is not read from {name.suffix}; export .ply.")
    if shape.ndim == 2:
        shape = points_seen(shape, name)
    if not np.isfinite(shape).all():
        raise InputError(f"{name} has NaN or infinite coordinates{' or features' * bool(features)}.")
    return shape


def points_seen(points: np.ndarray, name: PurePath) -> np.ndarray:
    """The points (N, 3 + D) without the rows that scanners fill with NaN or zeros where no echo came back.

    A single row of zeros is a point. Issues `ShapeWarning` where some are left out.
    """
    unseen = np.isnan(points).any(1)
    zeros = (points[:, :3] == 0).all(1)
    if zeros.sum() > 1:
        unseen |= zeros
    if unseen.all() or not unseen.any():
        return points
    warnings.warn(
        f"{name}: {unseen.sum()} of {len(points)} rows are NaN or zeros: left out", ShapeWarning, stacklevel=2
    )
    return points[~unseen]


def _reason(error: Exception) -> str:
    """An exception's first line, short and harmless to print."""
    text = str(error).partition("\n")[0] or type(error).__name__
    return re.sub(r"[^ -~]", "?", text)[:250].rstrip(".")
