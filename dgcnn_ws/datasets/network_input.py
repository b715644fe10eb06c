"""The one way from a shape to a network's input: `prepare`, `predict` and the library all take it.

`prepare` stores what `network_input` gives for all of the frame's points, training and evaluation read the first
`num_points` of that, and `predict` asks for those: the same numbers, bit for bit.
"""

import hashlib

import numpy as np

from dgcnn_ws.datasets.built_in.shapes import normalize
from dgcnn_ws.datasets.formats.polygons import Shape
from dgcnn_ws.datasets.frame import MAX_POINTS, Frame, width_of
from dgcnn_ws.datasets.shape_file import MAX_MEMORY_BYTES
from dgcnn_ws.datasets.solids import sample_surface
from dgcnn_ws.errors import InputError
from dgcnn_ws.memory_bound import memory_bound

ROUNDED = 1e-5  # how far float32 clouds that were normalised lie from what they should be


def network_input(shape: Shape, frame: Frame, num_points: int, name: str = "the shape") -> np.ndarray:
    """Return what a network that was trained on clouds of `frame` sees of a shape: points (num_points, C) float32.

    Args:
        shape: triangles (T, 3, 3), or points (N, 3), of finite coordinates; behind them in the last dimension the
            frame's features, at the corners of triangles all but the normals, which the triangles themselves have.
        frame: the way of the training data.
        num_points: points that the network sees. More than the frame has are drawn, and normalised over, in its stead.
        name: what to call the shape in messages.

    Returns:
        Of a cloud that has fewer points, and that the frame does not fill up, these alone: (N, C). C is the frame's
        width, 3 without features.

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
        points = np.resize(points, (count, points.shape[1]))  # over and over
    points = points[:num_points]
    if not np.isfinite(points).all():
        raise InputError(f"{name} has coordinates beyond what float32 holds.")
    return points


def generator_of(shape: Shape, frame: Frame) -> np.random.Generator:
    """Return what draws points: a function of the frame's seed and, unless it is of old, of the shape itself."""
    if frame.draw == "seed":
        return np.random.default_rng(frame.seed)
    digest = hashlib.blake2b(np.ascontiguousarray(shape[..., :3], "<f8").data, digest_size=32).digest()
    return np.random.default_rng([frame.seed, *digest])


def draw(shape: Shape, frame: Frame, count: int, name: str) -> np.ndarray:
    """Return points (count or fewer, C) float64 of a shape in the file's axes, in random order, normalised."""
    rng = generator_of(shape, frame)
    if shape.shape[-1] != width_in_file(frame, shape):
        raise InputError(f"{name} has {shape.shape[-1]} numbers at a point, and {frame.channels} are wanted.")
    if shape.ndim == 2 and not (frame.draw == "stored" and len(shape) == frame.num_points):
        shape = shape[rng.permutation(len(shape))[:count]]
    shape, features = shape[..., :3], shape[..., 3:]
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
            inner, features = points_of(inner, features, frame, count, rng)
        except IndexError as error:  # no triangle is chosen where all areas are zero
            raise InputError(f"{name} has only triangles without area.") from error
    if np.ptp(inner, axis=0).max() == 0:
        raise InputError(f"{name} is a single point.")
    if frame.normalization == "none":
        points = shape if shape.ndim == 2 else (inner * extent + centre) * scale
    else:
        points = shape if is_normalized(shape) else normalize(inner)
    return np.concatenate([points, features], axis=1) if frame.features else points


def width_in_file(frame: Frame, shape: Shape) -> int:
    """Return how many numbers a corner or point has: of a mesh's normals none, since its triangles have them."""
    return 3 + width_of([name for name in frame.features if shape.ndim == 2 or name != "normals"])


def points_of(
    triangles: Shape, features: np.ndarray, frame: Frame, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 3) of a surface, and the features (count, D) there, those of corners interpolated.

    Args:
        triangles: (T, 3, 3).
        features: (T, 3, D) or, with normals in the frame, three fewer: of triangles whose corners go round
            anticlockwise, seen from outside, they point outward.
    """
    points, chosen = sample_surface(np.concatenate([triangles, features], axis=2), count, rng)
    points, features = points[:, :3], points[:, 3:]
    if "normals" not in frame.features:
        return points, features
    edges = triangles[chosen, 1:] - triangles[chosen, :1]
    normals = np.cross(edges[:, 0], edges[:, 1])
    return points, np.concatenate([unit(normals), features], axis=1)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, 3) of length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: np.ndarray = vectors / np.where(lengths > 0, lengths, 1)
    return scaled


def is_normalized(shape: Shape) -> bool:
    """Whether a cloud has been normalised before and then rounded to float32: once more would change last bits."""
    if shape.ndim == 3 or np.abs(shape).max() > 2:
        return False
    radius = np.sqrt(np.square(shape).sum(1).max())
    return bool(max(np.abs(shape.mean(0)).max(), abs(radius - 1)) < ROUNDED)


def turn(points: np.ndarray, frame: Frame) -> np.ndarray:
    """Return points (N, C) of a file's axes in the cloud's, y up; their normals turn with them, to length 1."""
    parts = [points[:, :3], points[:, 3:]]
    if "normals" in frame.features:
        parts = [points[:, :3], unit(points[:, 3:6]), points[:, 6:]]
    for i in range(len(parts) - 1):
        columns = [parts[i][:, "xyz".index(axis[-1])] * (-1 if axis[0] == "-" else 1) for axis in frame.axes]
        parts[i] = np.stack(columns, axis=1)
    turned: np.ndarray = np.concatenate(parts, axis=1) if frame.features else parts[0]
    return turned
