"""glTF 2.0 scenes (https://registry.khronos.org/glTF/specs/2.0/glTF-2.0.html), from bytes that nobody vouches for.

Read here and not by trimesh 5.2, which takes normalized integers for coordinates, one instance for all of them, and
strips and fans for nothing.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np

from dgcnn_ws.datasets.formats import polygons
from dgcnn_ws.datasets.formats.encoding import plain_text
from dgcnn_ws.datasets.formats.polygons import Shape, make_shape, strip_triangles

MAX_COPIES = 16  # of its own size that a file's arrays may come to
TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
ITEMS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
# What a file may require without its surface being another than the rest of it says.
HARMLESS = re.compile(r"KHR_(materials|texture|lights)_.*|EXT_texture_.*|KHR_mesh_quantization|EXT_mesh_gpu_instancing")
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6
INLINE = re.compile(r"data:[^,]*;base64,")


def read_gltf(data: bytes) -> Shape:
    """A .glb, or a .gltf whose buffers `embed_buffers` has put inside: every mesh at all of its places in the scene.

    Quantized, sparse, morphed, skinned and instanced meshes of triangles, strips and fans, in the pose of the file;
    where there is no surface, the points.
    """
    document, binary = split_file(data)
    unknown = [name for name in document.get("extensionsRequired", []) if not HARMLESS.fullmatch(name)]
    if unknown:
        raise ValueError(f"it requires {unknown[0]}, which is not read here; export without (without compression, say)")
    surfaces: list[Shape] = []
    clouds: list[Shape] = []
    for part in Scene(document, binary, len(data)).parts():
        (surfaces if part.ndim == 3 else clouds).append(part)
        if sum(len(part) for part in surfaces) > polygons.MAX_TRIANGLES:  # one mesh may be placed any number of times
            raise ValueError(f"it has more than {polygons.MAX_TRIANGLES} triangles")
    if not surfaces and not clouds:
        raise ValueError("its scene has no triangles and no points")
    shape: Shape = np.concatenate(surfaces or clouds)
    return shape


def split_file(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON document of a .glb or .gltf, and the bytes beside it."""
    binary = b""
    if data[:4] == b"glTF":
        end = 20 + int.from_bytes(data[12:16], "little")
        binary = data[end + 8 : end + 8 + int.from_bytes(data[end : end + 4], "little")]
        data = data[20:end]
    try:
        document = json.loads(plain_text(data))
    except json.JSONDecodeError as error:
        raise ValueError("it is cut short, or no glTF: what should be its JSON is none") from error
    if not str(document.get("asset", {}).get("version", "2")).startswith("2"):
        raise ValueError("it is not of glTF's version 2")
    return document, binary


def embed_buffers(data: bytes, read: Callable[[PurePosixPath], bytes]) -> bytes:
    """A .gltf with the files of its buffers inside, so that nothing else needs to be opened after.

    Args:
        data: the .gltf; anything else is given back as it is.
        read: gives the bytes of a file by its name, relative to the .gltf's folder and never outside of it.
    """
    try:
        document, _ = split_file(data)
        buffers = [b for b in document.get("buffers", []) if "uri" in b and not INLINE.match(b["uri"])]
        names = [PurePosixPath(unquote(buffer["uri"])) for buffer in buffers]
    except Exception:  # no glTF: its reader says why
        return data
    if not names or any(name.is_absolute() or ".." in name.parts or ":" in str(name) for name in names):
        return data
    for buffer, name in zip(buffers, names, strict=True):
        buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(read(name)).decode()
    return json.dumps(document).encode()


class Scene:
    """The meshes of a document and where they are.

    Args:
        document: the JSON.
        binary: the bytes beside it, the first buffer's where that names no other.
        size: of the file, in bytes; bounds what is copied out of it.
    """

    def __init__(self, document: dict[str, Any], binary: bytes, size: int) -> None:
        self.document = document
        self.left = MAX_COPIES * size
        self.buffers: list[bytes] = []
        for i, buffer in enumerate(document.get("buffers", [])):
            uri = buffer.get("uri")
            if uri is not None and not INLINE.match(uri):
                raise ValueError("it keeps its data in another file that is not in its folder; export as .glb")
            self.buffers.append(base64.b64decode(uri.split(",", 1)[1]) if uri else binary if i == 0 else b"")
        self.world = dict(self._places())

    def parts(self) -> Iterator[Shape]:
        """Every mesh's triangles (T, 3, 3) or points (N, 3), at each of its places."""
        meshes = self.document.get("meshes", [])
        if not self.document.get("nodes"):
            places: list[tuple[dict[str, Any], np.ndarray]] = [({"mesh": i}, np.eye(4)) for i in range(len(meshes))]
        else:
            places = [(self.document["nodes"][i], matrix) for i, matrix in self.world.items()]
        for node, matrix in places:
            if "mesh" not in node:
                continue
            mesh = meshes[node["mesh"]]
            instances = matrix @ self._instances(node)  # (I, 4, 4)
            for primitive in mesh["primitives"]:
                part = self._primitive(primitive, node.get("weights", mesh.get("weights", [])), node.get("skin"))
                if part is None:
                    continue
                if len(part) * len(instances) > polygons.MAX_TRIANGLES:
                    raise ValueError(f"it has more than {polygons.MAX_TRIANGLES} triangles")
                moves = np.eye(4)[None] if "skin" in node else instances  # a skin's joints know where they are
                yield np.concatenate([part @ move[:3, :3].T + move[:3, 3] for move in moves])

    def _places(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each node of the scene by its number, and its matrix (4, 4) from there to the world."""
        nodes, scenes = self.document.get("nodes", []), self.document.get("scenes")
        children = {child for node in nodes for child in node.get("children", [])}
        roots = scenes[self.document.get("scene", 0)].get("nodes", []) if scenes else set(range(len(nodes))) - children
        waiting = [(i, np.eye(4)) for i in roots]
        met: set[int] = set()
        while waiting:
            i, above = waiting.pop()
            if i in met:
                raise ValueError("its nodes are no tree")
            met.add(i)
            matrix = above @ local_matrix(nodes[i])
            yield i, matrix
            waiting += [(child, matrix) for child in nodes[i].get("children", [])]

    def _instances(self, node: dict[str, Any]) -> np.ndarray:
        """The matrices (I, 4, 4) of EXT_mesh_gpu_instancing; one that moves nothing where there is none."""
        attributes = node.get("extensions", {}).get("EXT_mesh_gpu_instancing", {}).get("attributes", {})
        kinds = {"translation": "TRANSLATION", "rotation": "ROTATION", "scale": "SCALE"}
        values = {name: self._array(attributes[kind]) for name, kind in kinds.items() if kind in attributes}
        if not values:
            return np.eye(4)[None]
        rows = zip(*values.values(), strict=True)
        return np.stack([local_matrix(dict(zip(values, row, strict=True))) for row in rows])

    def _primitive(self, primitive: dict[str, Any], weights: list[float], skin: int | None) -> Shape | None:
        """One primitive's triangles or points in its node's axes; None where it is of lines."""
        mode = primitive.get("mode", TRIANGLES)
        if mode not in (POINTS, TRIANGLES, STRIP, FAN):
            return None
        attributes = primitive["attributes"]
        points = self._array(attributes["POSITION"])
        for weight, target in zip(weights, primitive.get("targets", []), strict=False):
            if "POSITION" in target:
                points = points + float(weight) * self._array(target["POSITION"])
        if skin is not None and "JOINTS_0" in attributes:
            points = self._skinned(points, attributes, self.document["skins"][skin])
        if mode == POINTS:
            return points
        corners = self._array(primitive["indices"])[:, 0] if "indices" in primitive else np.arange(len(points))
        if mode == TRIANGLES:
            faces = corners[: len(corners) // 3 * 3].reshape(-1, 3)
        elif mode == STRIP:
            faces = strip_triangles(corners, np.array([len(corners)]))
        else:
            faces = np.stack([np.full(max(len(corners) - 2, 0), corners[0]), corners[1:-1], corners[2:]], axis=1)
        return make_shape(points, faces) if len(faces) else None

    def _skinned(self, points: np.ndarray, attributes: dict[str, int], skin: dict[str, Any]) -> np.ndarray:
        """Points (N, 3) in the world, each where its joints take it."""
        matrices = np.stack([self.world.get(joint, np.eye(4)) for joint in skin["joints"]])
        if "inverseBindMatrices" in skin:
            matrices = matrices @ self._array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        moved = np.zeros_like(points)
        for i in range(4):
            joint = matrices[self._array(attributes["JOINTS_0"])[:, i].astype(int)]
            share = self._array(attributes["WEIGHTS_0"])[:, i, None]
            moved += share * ((joint[:, :3, :3] @ points[:, :, None])[..., 0] + joint[:, :3, 3])
        return moved

    def _array(self, number: int) -> np.ndarray:
        """An accessor's values (count, items) float64: integers that are called normalized lie between −1 and 1."""
        accessor = self.document["accessors"][number]
        count, items = int(accessor["count"]), ITEMS[accessor["type"]]
        dtype = np.dtype(TYPES[accessor["componentType"]])
        self.left -= count * items * dtype.itemsize
        if count < 0 or self.left < 0:
            raise ValueError("its arrays add up to many times its size")
        sparse = accessor.get("sparse")
        if "bufferView" in accessor:
            values = self._slice(accessor["bufferView"], accessor.get("byteOffset", 0), count, items, dtype)
        elif sparse is not None:
            values = np.zeros((count, items), dtype)
        else:
            raise ValueError("it has an array without data, as compressed files do; export without compression")
        if sparse is not None:
            kind, changed = np.dtype(TYPES[sparse["indices"]["componentType"]]), int(sparse["count"])
            where, what = sparse["indices"], sparse["values"]
            places = self._slice(where["bufferView"], where.get("byteOffset", 0), changed, 1, kind)[:, 0]
            values = values.copy()
            values[places] = self._slice(what["bufferView"], what.get("byteOffset", 0), changed, items, dtype)
        if accessor.get("normalized") and dtype.kind != "f":
            return np.maximum(values / float(np.iinfo(dtype).max), -1.0)
        return values.astype(np.float64)

    def _slice(self, number: int, offset: int, count: int, items: int, dtype: np.dtype) -> np.ndarray:
        """Rows (count, items) of a buffer's bytes."""
        view = self.document["bufferViews"][number]
        start, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
        stride = int(view.get("byteStride") or items * dtype.itemsize)
        end = offset + (count - 1) * stride + items * dtype.itemsize
        whole = self.buffers[view["buffer"]]
        if min(start, offset, count) < 0 or not 0 < stride <= 252 or end > length or start + length > len(whole):
            raise ValueError("it ends before its arrays do")
        if count == 0:
            return np.empty((0, items), dtype)
        return np.ndarray((count, items), dtype, whole, start + offset, (stride, dtype.itemsize))


def local_matrix(node: dict[str, Any]) -> np.ndarray:
    """The matrix (4, 4) of a node's own move."""
    if "matrix" in node:
        return np.reshape(np.asarray(node["matrix"], np.float64), (4, 4)).T
    matrix = np.eye(4)
    x, y, z, w = np.asarray(node.get("rotation", (0, 0, 0, 1)), np.float64)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix[:3, :3] = turn * np.asarray(node.get("scale", (1, 1, 1)), np.float64)
    matrix[:3, 3] = node.get("translation", (0, 0, 0))
    return matrix
