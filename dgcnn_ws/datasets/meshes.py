"""Mesh files as triangles: OFF, PLY, OBJ, STL and GLB, from bytes that nobody vouches for.

trimesh's readers do the work. What a reader would do with a hostile file beyond that (copy a buffer a thousand
times, compare every name with every other, open files that are named inside) is refused or taken out beforehand.
A reader raises any exception where its file cannot be read; `shape_file.read_shape` turns it into one sentence.
"""

import io
import json
import logging
import re
import warnings
from typing import Any

import numpy as np
from trimesh.exchange.gltf import load_glb
from trimesh.exchange.obj import load_obj
from trimesh.exchange.off import load_off
from trimesh.exchange.ply import load_ply
from trimesh.exchange.stl import load_stl

logging.getLogger("trimesh").addHandler(logging.NullHandler())  # its warnings end in the exceptions that follow

MAX_TRIANGLES = 1 << 23
MAX_COPIES = 16  # of its own size that a GLB file's views and accessors may come to
GLB_ITEM_BYTES = {5120: 1, 5121: 1, 5122: 2, 5123: 2, 5125: 4, 5126: 4}
GLB_ITEMS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}

Shape = np.ndarray  # triangles (T, 3, 3), or where there are none the points (N, 3)


def make_shape(vertices: Any, faces: Any) -> Shape:
    """Triangles of polygons (F, n) over vertices (V, 3), each cut into a fan; the vertices where there is none."""
    vertices = np.asarray(vertices, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"vertices of shape {vertices.shape}")
    if faces is None or len(faces) == 0:
        return vertices
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] < 3:
        raise ValueError(f"faces of shape {faces.shape}")
    if faces.shape[0] * (faces.shape[1] - 2) > MAX_TRIANGLES:
        raise ValueError(f"more than {MAX_TRIANGLES} triangles")
    if not (faces.min() >= 0 and faces.max() < len(vertices)):  # also where one is NaN
        raise ValueError("a face names a vertex that there is not")
    corners = np.arange(1, faces.shape[1] - 1)
    fan = np.stack([np.zeros_like(corners), corners, corners + 1], axis=1)  # (n − 2, 3)
    triangles: Shape = vertices[faces[:, fan].reshape(-1, 3).astype(np.int64)]
    return triangles


def read_off(data: bytes) -> Shape:
    """OFF, also with a header that runs on (`OFF490 518 0`), as some of ModelNet's do."""
    shape = _read_plain_off(data)
    if shape is None:  # colours, polygons, or damage
        loaded = load_off(io.BytesIO(data))
        shape = make_shape(loaded["vertices"], loaded["faces"])
    return shape


def _read_plain_off(data: bytes) -> Shape | None:
    """Coordinates and triangles alone, as all of ModelNet: several times faster and leaner than line by line."""
    text = re.sub(rb"#[^\n]*", b"", data)
    header = re.match(rb"\s*OFF\s*(\d+)\s+(\d+)\s+(\d+)\s", text)
    if header is None:
        return None
    num_vertices, num_faces = int(header[1]), int(header[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that is not numbers
        try:
            numbers = np.fromstring(text[header.end() :], sep=" ")
        except (DeprecationWarning, ValueError):
            return None
    if len(numbers) != 3 * num_vertices + 4 * num_faces:
        return None
    faces = numbers[3 * num_vertices :].reshape(-1, 4)
    if (faces[:, 0] != 3).any():
        return None
    return make_shape(numbers[: 3 * num_vertices].reshape(-1, 3), faces[:, 1:])


def read_ply(data: bytes) -> Shape:
    """PLY, ASCII or binary; without faces a cloud."""
    # Edges would become a drawing, at a cost that grows faster than their number.
    data = re.sub(rb"(?m)^element edge ", b"element line ", data, count=1)
    if b"ascii" in data[:100]:
        data = re.sub(rb"\n[ \t\r\n]+", b"\n", data)  # an empty line takes a hundred times its size
    loaded = load_ply(io.BytesIO(data), fix_texture=False, skip_materials=True)
    return make_shape(loaded["vertices"], loaded.get("faces"))


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


def read_stl(data: bytes) -> Shape:
    """STL, binary or ASCII, all its solids as one."""
    if len(data) != 84 + 50 * int.from_bytes(data[80:84], "little"):  # not binary
        data = b"solid all\n" + re.sub(rb"(?im)^[ \t]*(?:end)?solid.*$", b"", data) + b"\nendsolid all\n"
    loaded = load_stl(io.BytesIO(data))
    return make_shape(loaded["vertices"], loaded["faces"])


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
        if sum(len(part) for part in parts) > MAX_TRIANGLES:  # one mesh may be placed any number of times
            raise ValueError(f"more than {MAX_TRIANGLES} triangles")
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
