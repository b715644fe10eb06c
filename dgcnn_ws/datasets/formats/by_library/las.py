"""LAS and LAZ clouds of airborne and mobile scanners, by laspy (and lazrs, in Rust)."""

import io

import numpy as np

from dgcnn_ws.datasets.formats.by_library.apart import read_apart
from dgcnn_ws.extras import need

MAX_EXPANSION = 100  # of LAZ: a header that declares more has no data behind it


CODE = """
import laspy, numpy as np
points = laspy.read(source)
np.save(target, np.stack([np.asarray(points[axis], np.float64) for axis in "xyz"], axis=1))
"""


def read_las(data: bytes) -> np.ndarray:
    """The points (N, 3) of a .las or .laz, in its own units.

    Damaged bytes can end the process in which lazrs 0.8 reads them: a .laz has one of its own.
    """
    laspy = need("laspy", "formats", ".las")
    check_records(data)
    with laspy.open(io.BytesIO(data)) as reader:
        header = reader.header
        size = int(header.point_count) * int(header.point_format.size)
        if size > (MAX_EXPANSION if header.are_points_compressed else 1) * len(data):
            raise ValueError(f"it declares {header.point_count} points, more than its bytes can hold")
        if header.are_points_compressed:
            need("lazrs", "formats", ".laz")
            return read_apart(CODE, data, ".laz")
        points = reader.read()
    return np.stack([np.asarray(points[axis], np.float64) for axis in "xyz"], axis=1)


def check_records(data: bytes) -> None:
    """Raise ValueError where a header says what its bytes cannot hold, which laspy 2.7 does not notice."""
    if len(data) < 227 or data[:4] != b"LASF":
        raise ValueError("it has no LAS header")
    points_start, records = (int.from_bytes(data[place : place + 4], "little") for place in (96, 100))
    extended = int.from_bytes(data[243:247], "little") if data[25] >= 4 else 0  # from version 1.4 on
    if points_start > len(data) or 54 * records > points_start or 60 * extended > len(data):
        raise ValueError("its header counts more records than its bytes hold")
