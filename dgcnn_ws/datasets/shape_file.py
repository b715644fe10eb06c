"""One shape from one file: read within bounds, points drawn from it, brought into a network's frame."""

import re
from collections.abc import Callable
from pathlib import Path, PurePath

import numpy as np

from dgcnn_ws.datasets.built_in.shapes import normalize
from dgcnn_ws.datasets.formats.arrays import read_npy, read_npz
from dgcnn_ws.datasets.formats.gltf import read_glb
from dgcnn_ws.datasets.formats.obj import read_obj
from dgcnn_ws.datasets.formats.off import read_off
from dgcnn_ws.datasets.formats.ply import read_ply
from dgcnn_ws.datasets.formats.polygons import Shape
from dgcnn_ws.datasets.formats.stl import read_stl
from dgcnn_ws.datasets.formats.tables import read_text
from dgcnn_ws.datasets.frame import AXES
from dgcnn_ws.datasets.memory_bound import memory_bound
from dgcnn_ws.datasets.solids import sample_surface
from dgcnn_ws.errors import InputError

READERS: dict[str, Callable[[bytes], Shape]] = {
    ".off": read_off,
    ".obj": read_obj,
    ".ply": read_ply,
    ".stl": read_stl,
    ".glb": read_glb,
    ".npy": read_npy,
    ".npz": read_npz,
    ".xyz": read_text,
    ".txt": read_text,
    ".pts": read_text,
}
MAX_FILE_BYTES = 1 << 29
MAX_MEMORY_BYTES = 4 << 30


def read_bytes(path: Path) -> bytes:
    """A file's contents. Raises InputError where it is missing, unreadable or larger than `MAX_FILE_BYTES`."""
    try:
        if path.is_file():
            with open(path, "rb") as file:
                data = file.read(MAX_FILE_BYTES + 1)
            return check_size(data, path)
        reason = "there is no such file"
    except OSError as error:
        reason = error.strerror or str(error)
    raise InputError(f"{path} cannot be read ({reason}).")


def check_size(data: bytes, name: PurePath) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{name} is larger than the {MAX_FILE_BYTES >> 20} MiB that a shape may have.")
    return data


def check_axis(up: str) -> None:
    """Raise InputError where `up` is no axis that may point up in a file."""
    if up not in AXES:
        raise InputError(f"--up {up!r} is unknown. Choose one of {', '.join(AXES)}.")


def load_points(data: bytes, name: PurePath, num_points: int, up: str, rng: np.random.Generator) -> np.ndarray:
    """Points (N, 3) float64 of the shape in a file, in a network's frame: y up, zero mean, the farthest at 1.

    A mesh gives `num_points`; a cloud as many of its own, or all of them where it has fewer. Takes at most
    `MAX_MEMORY_BYTES` above what the process holds (enforced on Linux), and follows no reference to another file.

    Args:
        data: the file's contents.
        name: its name, whose ending says what format they have.
        up: the axis that points up in the file, `z` or `y`.
        rng: draws the points.

    Raises:
        InputError: the format is unknown, the file damaged, empty, flat or too large, or a coordinate not finite.
    """
    check_axis(up)
    try:
        with memory_bound(MAX_MEMORY_BYTES), np.errstate(all="ignore"):
            points = draw_points(read_shape(data, name), num_points, rng, name)
    except MemoryError as error:
        raise InputError(f"{name} needs more than {MAX_MEMORY_BYTES >> 30} GiB to be read; simplify it.") from error
    return points[:, [0, 2, 1]] * (1, 1, -1) if up == "z" else points


def read_shape(data: bytes, name: PurePath) -> Shape:
    """The triangles (T, 3, 3) or, of a cloud, points (N, 3) float64 in a file. Raises InputError, MemoryError."""
    reader = READERS.get(name.suffix.lower())
    if reader is None:
        raise InputError(f"{name} ends in none of {', '.join(READERS)}, so it is not known how to read it.")
    try:
        shape = reader(data)
    except MemoryError:
        raise
    except Exception as error:  # readers meet arbitrary bytes with any exception
        raise InputError(f"{name} cannot be read as {name.suffix} ({_reason(error)}).") from error
    if len(shape) == 0:
        raise InputError(f"{name} holds neither triangles nor points.")
    if not np.isfinite(shape).all():
        raise InputError(f"{name} has NaN or infinite coordinates.")
    return shape


def _reason(error: Exception) -> str:
    """An exception's first line, short and harmless to print."""
    text = str(error).partition("\n")[0] or type(error).__name__
    return re.sub(r"[^ -~]", "?", text)[:120].rstrip(".")


def draw_points(shape: Shape, num_points: int, rng: np.random.Generator, name: PurePath) -> np.ndarray:
    """Points (N, 3) in random order, zero mean, the farthest at distance 1: see `load_points`."""
    # Into a small range first: squares of coordinates such as 1e200 overflow.
    shape = shape / max(np.abs(shape).max(), np.finfo(float).tiny)
    shape -= shape.reshape(-1, 3).mean(0)
    shape /= np.abs(shape).max()
    if not np.isfinite(shape).all():
        raise InputError(f"{name} is a single point.")
    if shape.ndim == 3:
        try:
            points, _ = sample_surface(shape, num_points, rng)
        except IndexError as error:  # no triangle is chosen where all areas are zero
            raise InputError(f"{name} has only triangles without area.") from error
    else:
        points = shape[rng.permutation(len(shape))[:num_points]]
    if np.ptp(points, axis=0).max() == 0:
        raise InputError(f"{name} is a single point.")
    return normalize(points)
