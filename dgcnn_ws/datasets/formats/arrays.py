"""Clouds and meshes as NumPy arrays, from bytes that nobody vouches for. No pickle is ever opened."""

import io
import math
import zipfile
from collections.abc import Sequence

import numpy as np

from dgcnn_ws.datasets.formats.features import of_columns, scaled, with_features
from dgcnn_ws.datasets.formats.polygons import Shape, make_shape
from dgcnn_ws.datasets.frame import width_of

CLOUDS = ("points", "pos", "xyz", "data")  # what a cloud is called in an archive of several arrays
VERTICES = ("vertices", "verts", "v", *CLOUDS)
ARRAYS: dict[str, tuple[str, ...]] = {"normals": ("normals", "normal"), "intensity": ("intensity", "intensities")}
ARRAYS["colour"] = ("colour", "colours", "color", "colors", "rgb")
FACES = ("faces", "triangles", "tris", "face", "f")
MAX_ARRAY_BYTES = 1 << 29  # a compressed array's size is declared, not seen


def read_npy(data: bytes, features: Sequence[str] = ()) -> Shape:
    """A .npy array (N, 3 or more), the first three columns; or of rows with fields called x, y and z.

    Features are fields of these rows, or all further columns.
    """
    return points_of(read_array(data), features)


def read_npz(data: bytes, features: Sequence[str] = ()) -> Shape:
    """A .npz archive's only array, or the one called `points`, `pos`, `xyz` or `data`; a mesh of vertices and faces.

    Features are arrays beside a cloud's, or as in a .npy.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        faces = next((name for name in FACES if name in members), None)
        name = next((name for name in (VERTICES if faces else CLOUDS) if name in members), None)
        if name is None and len(members) == 1:
            name = next(iter(members))
        if name is None:
            raise ValueError(f"it has several arrays, none called {' or '.join(CLOUDS)}")
        array = read_array(read_within_bounds(archive, members[name]))
        if faces is not None and faces != name:
            if at_corners := [feature for feature in features if feature != "normals"]:
                raise ValueError(f"of a mesh in a .npz, {at_corners[0]} is not read; export .ply")
            return make_shape(array, read_array(read_within_bounds(archive, members[faces])))
        beside = {feature: next((n for n in ARRAYS[feature] if n in members), None) for feature in features}
        if not features or array.dtype.names is not None or None in beside.values():
            return points_of(array, features)
        parts = [points_of(array)]
        for feature, called in beside.items():
            values = read_array(read_within_bounds(archive, members[called or ""]))
            values = values[:, None] if values.ndim == 1 else values
            if values.dtype.kind not in "fiu" or values.shape != (len(array), width_of([feature])):
                raise ValueError(f"its array {called} has shape {values.shape}, for {len(array)} points")
            parts.append(scaled(values, feature))
        return np.concatenate(parts, axis=1)


def read_within_bounds(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # of unbounded memory
        raise ValueError("it has an array that is not packed by deflate")
    if member.file_size > MAX_ARRAY_BYTES:
        raise ValueError(f"it has an array of more than {MAX_ARRAY_BYTES} bytes")
    return archive.read(member)


def read_array(data: bytes) -> np.ndarray:
    """The array in the bytes of a .npy file, of numbers or of rows of named numbers."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version > (2, 0):
        raise ValueError(f"it is of .npy version {version}, which numbers do not need")
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
    shape, by_columns, dtype = read_header(stream)
    if dtype.hasobject or dtype.kind not in "fiuV":
        raise ValueError(f"it is an array of {dtype}, not of numbers")
    if len(data) - stream.tell() != (size := math.prod(shape) * dtype.itemsize):
        raise ValueError(f"it has {len(data) - stream.tell()} bytes of numbers where its header says {size}")
    # From the bytes there are, so that no memory is taken for those that a header only claims.
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if by_columns else "C")


def points_of(values: np.ndarray, features: Sequence[str] = ()) -> np.ndarray:
    """Points (N, 3 + D) float64 of an array; ValueError where it is not certain which numbers they are."""
    if values.dtype.names is not None:
        return with_features(named_points(values), {name: values[name] for name in values.dtype.names}, features)
    if values.dtype.kind not in "fiu":
        raise ValueError(f"it is an array of {values.dtype}, not of numbers")
    if values.ndim != 2 or values.shape[1] < 3:
        raise ValueError(f"it is an array of shape {values.shape}, where a cloud is (points, 3)")
    points = values[:, :3].astype(np.float64)
    check_rows(points, values.shape[1])
    return of_columns(values, features) if features else points


def named_points(rows: np.ndarray) -> np.ndarray:
    """Points (N, 3) float64 of rows (N,) with fields called x, y and z, and any others."""
    fields = {name.lower(): name for name in rows.dtype.names or ()}
    if rows.ndim != 1 or not set("xyz") <= fields.keys() or len(fields) < len(rows.dtype.names or ()):
        raise ValueError(f"its fields are called {', '.join(fields)}, and not x, y and z each once")
    return np.stack([rows[fields[axis]] for axis in "xyz"], axis=1).astype(np.float64)


def check_rows(first: np.ndarray, width: int) -> None:
    """Raise ValueError where the first three (N, 3) of `width` nameless columns may not be a cloud's x, y and z."""
    count = len(first)
    if width > 3 and (count == 3 or (width > 16 and width > count)):
        raise ValueError(f"it is of shape ({count}, {width}), and points must be rows: save it as ({width}, {count})")
    numbers = first[:, 0]
    if width > 3 and count > 3 and any(np.array_equal(numbers, np.arange(start, start + count)) for start in (0, 1)):
        raise ValueError("its first column counts the rows: leave it out, or name the columns x, y and z")
