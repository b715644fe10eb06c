"""glTF scenes, from bytes that nobody vouches for."""

import io
import json

import numpy as np
from trimesh.exchange.gltf import load_glb

from dgcnn_ws.datasets.formats import polygons
from dgcnn_ws.datasets.formats.polygons import Shape, make_shape

MAX_COPIES = 16  # of its own size that a GLB file's views and accessors may come to
GLB_ITEM_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
GLB_ITEMS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}


def read_glb(data: bytes) -> Shape:
    """glTF's binary form, every mesh at its places in the scene; extensions that compress are refused."""
    _check_glb(data)
    loaded = load_glb(io.BytesIO(data), skip_materials=True)
    meshes = loaded["geometry"]
    world = {"world": np.eye(4)}
    parts: list[Shape] = []
    for edge in loaded["graph"] or [{"frame_from": "world", "frame_to": name, "geometry": name} for name in meshes]:
        frame = world[edge["frame_from"]] @ edge.get("matrix", np.eye(4))
        world[edge["frame_to"]] = frame
        mesh = meshes.get(edge.get("geometry"))
        if mesh is None or "entities" in mesh:  # a node without a mesh, or lines
            continue
        part = make_shape(mesh["vertices"], mesh.get("faces"))
        parts.append(part @ frame[:3, :3].T + frame[:3, 3])
        if sum(len(part) for part in parts) > polygons.MAX_TRIANGLES:  # one mesh may be placed any number of times
            raise ValueError(f"more than {polygons.MAX_TRIANGLES} triangles")
    surfaces = [part for part in parts if part.ndim == 3]
    shape: Shape = np.concatenate(surfaces or parts)
    return shape


def _check_glb(data: bytes) -> None:
    header = json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])
    if any("uri" in buffer for buffer in header.get("buffers", [])):
        raise ValueError("data kept outside the file, which is not followed")
    views, accessors = header.get("bufferViews", []), header.get("accessors", [])
    if any("bufferView" not in accessor or "sparse" in accessor for accessor in accessors):
        raise ValueError("compressed or sparse data, which cannot be read here; export without compression")
    # Views and accessors are copied: a small file may name one buffer in a million of them.
    sizes = [view["byteLength"] for view in views]
    sizes += [a["count"] * GLB_ITEM_BYTES[a["componentType"]] * GLB_ITEMS[a["type"]] for a in accessors]
    if any(size < 0 for size in sizes) or sum(sizes) > MAX_COPIES * len(data):
        raise ValueError("views of its data that add up to many times its size")
