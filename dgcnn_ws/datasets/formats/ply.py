"""PLY meshes and clouds, from bytes that nobody vouches for."""

import io
import re

from trimesh.exchange.ply import load_ply

from dgcnn_ws.datasets.formats.polygons import Shape, make_shape


def read_ply(data: bytes) -> Shape:
    """PLY, ASCII or binary; without faces a cloud."""
    # Edges would become a drawing, at a cost that grows faster than their number.
    data = re.sub(rb"(?m)^element edge ", b"element line ", data, count=1)
    if b"ascii" in data[:100]:
        data = re.sub(rb"\n[ \t\r\n]+", b"\n", data)  # an empty line takes a hundred times its size
    loaded = load_ply(io.BytesIO(data), fix_texture=False, skip_materials=True)
    return make_shape(loaded["vertices"], loaded.get("faces"))
