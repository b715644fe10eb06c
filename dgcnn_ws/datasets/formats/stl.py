"""STL meshes, from bytes that nobody vouches for."""

import io
import re

from trimesh.exchange.stl import load_stl

from dgcnn_ws.datasets.formats.polygons import Shape, make_shape


def read_stl(data: bytes) -> Shape:
    """STL, binary or ASCII, all its solids as one."""
    if len(data) != 84 + 50 * int.from_bytes(data[80:84], "little"):  # not binary
        data = b"solid all\n" + re.sub(rb"(?im)^[ \t]*(?:end)?solid.*$", b"", data) + b"\nendsolid all\n"
    loaded = load_stl(io.BytesIO(data))
    return make_shape(loaded["vertices"], loaded["faces"])
