"""STL meshes, from bytes that nobody vouches for."""

import re

import numpy as np

from dgcnn_ws.datasets.formats.polygons import Shape, make_shape

FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
HEADER = 84  # bytes; the last four are the number of facets
VERTEX = re.compile(rb"(?im)^[ \t]*vertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)[ \t]*\r?$")
LOOP = re.compile(rb"(?im)^[ \t]*endloop\b")


def read_stl(data: bytes) -> Shape:
    """STL, binary or ASCII, all its solids as one.

    Raises ValueError where a facet has other than three corners, or a coordinate is no number.
    """
    if len(data) == HEADER + FACET.itemsize * int.from_bytes(data[80:HEADER], "little"):
        corners = np.frombuffer(data, FACET, offset=HEADER)["corners"].reshape(-1, 3)
    else:
        corners = np.array(VERTEX.findall(data)).reshape(-1, 3).astype(np.float64)
        if len(corners) != 3 * len(LOOP.findall(data)):
            raise ValueError(f"it has {len(LOOP.findall(data))} facets, and {len(corners)} corners")
        if len(corners) == 0 and (b"\0" in data or b"solid" not in data.lower()):
            raise ValueError("it is no text that begins with solid, and not as long as its number of triangles says")
    return make_shape(corners, np.arange(len(corners)).reshape(-1, 3))
