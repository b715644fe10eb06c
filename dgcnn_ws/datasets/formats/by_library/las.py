"""LAS and LAZ clouds of airborne and mobile scanners, by laspy (and lazrs, in Rust)."""

import io
from collections.abc import Sequence

import numpy as np

from dgcnn_ws.datasets.formats.by_library.apart import read_apart
from dgcnn_ws.datasets.formats.features import with_features
from dgcnn_ws.extras import need

MAX_EXPANSION = 100  # of LAZ: a header that declares more has no data behind it


CODE = """
import laspy, numpy as np
points = laspy.read(source)
known = [name for name in {names} if name in points.point_format.dimension_names]
np.save(target, np.stack([np.asarray(points[name], np.float64) for name in ("x", "y", "z", *known)], axis=1))
"""
NAMES = {"normals": (), "colour": ("red", "green", "blue"), "intensity": ("intensity",)}  # of 16 bits each


def read_las(data: bytes, features: Sequence[str] = ()) -> np.ndarray:
    """The points (N, 3 + D) of a .las or .laz, in its own units.

    Damaged bytes can end the process in which lazrs 0.8 reads them: a .laz has one of its own.
    """
    laspy = need("laspy", "formats", ".las")
    check_records(data)
    with laspy.open(io.BytesIO(data)) as reader:
        header = reader.header
        size = int(header.point_count) * int(header.point_format.size)
        if size > (MAX_EXPANSION if header.are_points_compressed else 1) * len(data):
            raise ValueError(f"it declares {header.point_count} points, more than its bytes can hold")
        names = [name for feature in features for name in NAMES[feature]]
        known = [name for name in names if name in set(header.point_format.dimension_names)]
        if header.are_points_compressed:
            need("lazrs", "formats", ".laz")
            table = read_apart(CODE.format(names=names), data, ".laz")
        else:
            points = reader.read()
            table = np.stack([np.asarray(points[name], np.float64) for name in ("x", "y", "z", *known)], axis=1)
    columns = {name: column.astype(np.uint16) for name, column in zip(known, table[:, 3:].T, strict=True)}
    return with_features(table[:, :3], columns, features)


def check_records(data: bytes) -> None:
    """Raise ValueError where a header says what its bytes cannot hold, which laspy 2.7 does not notice."""
    if len(data) < 227 or data[:4] != b"LASF":
        raise ValueError("it has no LAS header")
    points_start, records = (int.from_bytes(data[place : place + 4], "little") for place in (96, 100))
    extended = int.from_bytes(data[243:247], "little") if data[25] >= 4 else 0  # from version 1.4 on
    if points_start > len(data) or 54 * records > points_start or 60 * extended > len(data):
        raise ValueError("its header counts more records than its bytes hold")
