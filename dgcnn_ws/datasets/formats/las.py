"""LAS and LAZ clouds of airborne and mobile scanners, by laspy (and lazrs, in Rust)."""

import io

import numpy as np

from dgcnn_ws.datasets.formats.extras import need

MAX_EXPANSION = 100  # of LAZ: a header that declares more has no data behind it


def read_las(data: bytes) -> np.ndarray:
    """The points (N, 3) of a .las or .laz, in its own units."""
    laspy = need("laspy", "laspy", ".las")
    with laspy.open(io.BytesIO(data)) as reader:
        header = reader.header
        size = int(header.point_count) * int(header.point_format.size)
        if size > (MAX_EXPANSION if header.are_points_compressed else 1) * len(data):
            raise ValueError(f"it declares {header.point_count} points, more than its bytes can hold")
        if header.are_points_compressed:
            need("lazrs", "lazrs", ".laz")
        points = reader.read()
    return np.stack([np.asarray(points.x), np.asarray(points.y), np.asarray(points.z)], axis=1).astype(np.float64)
