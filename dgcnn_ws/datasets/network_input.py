"""The one way from a shape to a network's input: `prepare`, `predict` and the library all take it.

`prepare` stores what `network_input` gives for all of the frame's points, training and evaluation read the first
`num_points` of that, and `predict` asks for those: the same numbers, bit for bit.
"""

import hashlib

import numpy as np

from dgcnn_ws.datasets.built_in.shapes import normalize
from dgcnn_ws.datasets.formats.polygons import Shape
from dgcnn_ws.datasets.frame import MAX_POINTS, Frame
from dgcnn_ws.datasets.shape_file import MAX_MEMORY_BYTES
from dgcnn_ws.datasets.solids import sample_surface
from dgcnn_ws.errors import InputError
from dgcnn_ws.memory_bound import memory_bound

ROUNDED = 1e-5  # how far float32 clouds that were normalised lie from what they should be


def network_input(shape: Shape, frame: Frame, num_points: int, name: str = "the shape") -> np.ndarray:
    """Return what a network that was trained on clouds of `frame` sees of a shape: points (num_points, 3) float32.

    Args:
        shape: triangles (T, 3, 3), or points (N, 3), of finite coordinates.
        frame: the way of the training data.
        num_points: points that the network sees. More than the frame has are drawn, and normalised over, in its stead.
        name: what to call the shape in messages.

    Returns:
        Of a cloud that has fewer points, and that the frame does not fill up, these alone: (N, 3).

    Raises InputError where all points are one, triangles have no area, or more points are wanted than can be drawn.
    """
    count = max(frame.num_points, num_points)
    if count > MAX_POINTS:
        raise InputError(f"--num-points {num_points} must not be above {MAX_POINTS}.")
    try:
        with memory_bound(MAX_MEMORY_BYTES), np.errstate(all="ignore"):
            points = turn(draw(np.asarray(shape, np.float64), frame, count, name), frame).astype(np.float32)
    except MemoryError as error:
        raise InputError(f"{name} needs more than {MAX_MEMORY_BYTES >> 30} GiB; simplify it.") from error
    if frame.fill == "repeat":
        points = np.resize(points, (count, 3))  # over and over
    points = points[:num_points]
    if not np.isfinite(points).all():
        raise InputError(f"{name} has coordinates beyond what float32 holds.")
    return points


def generator_of(shape: Shape, frame: Frame) -> np.random.Generator:
    """Return what draws points: a function of the frame's seed and, unless it is of old, of the shape itself."""
    if frame.draw == "seed":
        return np.random.default_rng(frame.seed)
    digest = hashlib.blake2b(np.ascontiguousarray(shape, "<f8").data, digest_size=32).digest()
    return np.random.default_rng([frame.seed, *digest])


def draw(shape: Shape, frame: Frame, count: int, name: str) -> np.ndarray:
    """Return points (count or fewer, 3) float64 of a shape in the file's axes, in random order, normalised."""
    rng = generator_of(shape, frame)
    if shape.ndim == 2 and not (frame.draw == "stored" and len(shape) == frame.num_points):
        shape = shape[rng.permutation(len(shape))[:count]]
    # Into a small range first: squares of coordinates such as 1e200 overflow.
    scale = max(np.abs(shape).max(), np.finfo(float).tiny)
    inner = shape / scale
    centre = inner.reshape(-1, 3).mean(0)
    inner -= centre
    extent = np.abs(inner).max()
    inner /= extent
    if not np.isfinite(inner).all():
        raise InputError(f"{name} is a single point.")
    if shape.ndim == 3:
        try:
            inner, _ = sample_surface(inner, count, rng)
        except IndexError as error:  # no triangle is chosen where all areas are zero
            raise InputError(f"{name} has only triangles without area.") from error
    if np.ptp(inner, axis=0).max() == 0:
        raise InputError(f"{name} is a single point.")
    if frame.normalization == "none":
        return shape if shape.ndim == 2 else (inner * extent + centre) * scale
    return shape if is_normalized(shape) else normalize(inner)


def is_normalized(shape: Shape) -> bool:
    """Whether a cloud has been normalised before and then rounded to float32: once more would change last bits."""
    if shape.ndim == 3 or np.abs(shape).max() > 2:
        return False
    radius = np.sqrt(np.square(shape).sum(1).max())
    return bool(max(np.abs(shape.mean(0)).max(), abs(radius - 1)) < ROUNDED)


def turn(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Return points (N, 3) of a file's axes in the cloud's, y up."""
    columns = [points[:, "xyz".index(axis[-1])] * (-1 if axis[0] == "-" else 1) for axis in frame.axes]
    turned: np.ndarray = np.stack(columns, axis=1)
    return turned
