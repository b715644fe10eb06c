"""Wavefront OBJ meshes, from bytes that nobody vouches for."""

import io
import re

from trimesh.exchange.obj import load_obj

from dgcnn_ws.datasets.formats.polygons import Shape, make_shape


def read_obj(data: bytes) -> Shape:
    """Wavefront OBJ. Of its lines only vertices and faces are read: no materials, no other files."""
    text = re.sub(rb"#.*", b"", re.sub(rb"\\\r?\n", b" ", data))
    text = re.sub(rb"(?m)^(?![vf][ \t]).*\n?", b"", text)
    text = re.sub(rb"/\S*", b"", text)  # 1/2/3 -> 1
    if re.search(rb"(?m)^f.*-", text):
        raise ValueError("relative (negative) vertex numbers, which cannot be read here; export with absolute ones")
    loaded = load_obj(io.BytesIO(text), skip_materials=True)
    if "vertices" in loaded:
        return make_shape(loaded["vertices"], None)
    (mesh,) = loaded["geometry"].values()
    return make_shape(mesh["vertices"], mesh["faces"])
