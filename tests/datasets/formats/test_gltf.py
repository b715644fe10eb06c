"""glTF scenes against trimesh's own meshes and what the specification says of small ones."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from dgcnn_ws.datasets.formats import polygons
from dgcnn_ws.datasets.formats.gltf import embed_buffers, read_gltf
from dgcnn_ws.datasets.shape_file import load_shape, read_bytes
from dgcnn_ws.errors import InputError

BOX = trimesh.creation.box(extents=(1, 2, 3))
TYPES = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
SQUARE = np.array([(0, 0, 0), (2, 0, 0), (0, 2, 0), (2, 2, 0)], "f4")


def area(triangles: np.ndarray) -> float:
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2)


def document(arrays: list[np.ndarray], **parts: Any) -> tuple[dict[str, Any], bytes]:
    """A glTF document with one accessor an array, and the bytes of them all."""
    binary, views, accessors = b"", [], []
    for array in arrays:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes})
        items = {1: "SCALAR", 3: "VEC3", 4: "VEC4", 16: "MAT4"}[array.shape[1] if array.ndim == 2 else 1]
        kind = TYPES[str(array.dtype)]
        accessors.append({"bufferView": len(views) - 1, "componentType": kind, "count": len(array), "type": items})
        binary += array.tobytes() + bytes(-array.nbytes % 4)
    whole = {"asset": {"version": "2.0"}, "buffers": [{"byteLength": len(binary)}], "bufferViews": views}
    return whole | {"accessors": accessors, "nodes": [{"mesh": 0}], "scenes": [{"nodes": [0]}]} | parts, binary


def glb(arrays: list[np.ndarray], **parts: Any) -> bytes:
    whole, binary = document(arrays, **parts)
    text = json.dumps(whole).encode()
    text += b" " * (-len(text) % 4)
    body = len(text).to_bytes(4, "little") + b"JSON" + text + len(binary).to_bytes(4, "little") + b"BIN\0" + binary
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(body)).to_bytes(4, "little") + body


def mesh(mode: int = 4, indices: int | None = None, **more: Any) -> list[dict[str, Any]]:
    primitive: dict[str, Any] = {"attributes": {"POSITION": 0}, "mode": mode} | more
    return [{"primitives": [primitive | ({"indices": indices} if indices is not None else {})]}]


def test_trimeshs_scene_with_every_mesh_at_its_places() -> None:
    scene = trimesh.Scene()
    scene.add_geometry(BOX, geom_name="box", node_name="parent", transform=trimesh.transformations.scale_matrix(2))
    moved = trimesh.transformations.translation_matrix((5, 0, 0))
    scene.add_geometry(BOX, geom_name="box", node_name="child", parent_node_name="parent", transform=moved)
    triangles = read_gltf(scene.export(file_type="glb"))
    assert triangles.shape == (24, 3, 3)
    assert area(triangles) == pytest.approx(2 * 4 * 22)
    assert triangles[..., 0].min() == pytest.approx(-1) and triangles[..., 0].max() == pytest.approx(2 * 5.5)


@pytest.mark.parametrize(
    ("mode", "corners", "count"),
    [(4, [0, 1, 2, 2, 1, 3], 2), (5, [0, 1, 2, 3], 2), (6, [0, 1, 3, 2], 2), (5, None, 2), (4, [0, 1, 2, 2], 1)],
)
def test_lists_strips_and_fans(mode: int, corners: list[int] | None, count: int) -> None:
    arrays = [SQUARE, *([np.array(corners, "u2")] if corners else [])]
    triangles = read_gltf(glb(arrays, meshes=mesh(mode, 1 if corners else None)))
    assert triangles.shape == (count, 3, 3) and area(triangles) == pytest.approx(2 * count)


@pytest.mark.parametrize(("dtype", "one"), [("i1", 127), ("u1", 255), ("i2", 32767), ("u2", 65535)])
def test_normalized_integers(dtype: str, one: int) -> None:
    packed = np.array([(0, 0, 0), (one, 0, 0), (0, one, 0)], dtype)
    data, binary = document([packed], meshes=mesh(), extensionsRequired=["KHR_mesh_quantization"])
    data["accessors"][0]["normalized"] = True
    data["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    assert np.allclose(read_gltf(json.dumps(data).encode()), [[(0, 0, 0), (1, 0, 0), (0, 1, 0)]])


def test_every_instance_is_there() -> None:
    places = np.array([(i * 10, 0, 0) for i in range(6)], "f4")
    turns = np.tile(np.array([(0, 0, np.sqrt(0.5), np.sqrt(0.5))], "f4"), (6, 1))  # a quarter about z
    sizes = np.full((6, 3), 0.5, "f4")
    attributes = {"TRANSLATION": 1, "ROTATION": 2, "SCALE": 3}
    node = {"mesh": 0, "scale": [2, 2, 2], "extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}}
    data = glb([SQUARE, places, turns, sizes], meshes=mesh(5), nodes=[node])
    triangles = read_gltf(data)
    assert triangles.shape == (12, 3, 3) and area(triangles) == pytest.approx(6 * 4)
    assert triangles[..., 0].max() == pytest.approx(100) and triangles[..., 0].min() == pytest.approx(-2)


def test_morphed_and_skinned_meshes_lie_as_the_file_poses_them() -> None:
    up = np.tile(np.array([(0, 0, 4)], "f4"), (4, 1))
    morphed = mesh(5, targets=[{"POSITION": 1}])
    assert read_gltf(glb([SQUARE, up], meshes=morphed, nodes=[{"mesh": 0, "weights": [0.5]}]))[..., 2].max() == 2
    joints, weights = np.zeros((4, 4), "u1"), np.tile(np.array([(1, 0, 0, 0)], "f4"), (4, 1))
    skinned = mesh(5)
    skinned[0]["primitives"][0]["attributes"] |= {"JOINTS_0": 1, "WEIGHTS_0": 2}
    bind = np.eye(4, dtype="f4").reshape(1, 16)
    nodes = [{"mesh": 0, "skin": 0, "translation": [100, 0, 0]}, {"translation": [0, 0, 7]}]  # the first does not count
    data = glb(
        [SQUARE, joints, weights, bind],
        meshes=skinned,
        nodes=nodes,
        scenes=[{"nodes": [0, 1]}],
        skins=[{"joints": [1], "inverseBindMatrices": 3}],
    )
    assert np.allclose(read_gltf(data).reshape(-1, 3).max(0), [2, 2, 7])


def test_sparse_arrays() -> None:
    data, binary = document([SQUARE, np.array([3], "u2"), np.array([(9, 9, 0)], "f4")], meshes=mesh(5))
    places, values = {"bufferView": 1, "componentType": 5123}, {"bufferView": 2}
    data["accessors"][0]["sparse"] = {"count": 1, "indices": places, "values": values}
    data["buffers"][0]["uri"] = "data:;base64," + base64.b64encode(binary).decode()
    assert read_gltf(json.dumps(data).encode()).max() == 9


def test_points_where_there_is_no_surface() -> None:
    assert read_gltf(glb([SQUARE], meshes=mesh(0))).shape == (4, 3)
    both = [{"primitives": mesh(0)[0]["primitives"] + mesh(5)[0]["primitives"]}]
    assert read_gltf(glb([SQUARE], meshes=both)).shape == (2, 3, 3)


def test_a_gltf_reads_the_files_of_its_own_folder_alone(tmp_path: Path) -> None:
    for name, data in BOX.scene().export(file_type="gltf").items():
        (tmp_path / name).write_bytes(data)
    (path,) = tmp_path.glob("*.gltf")
    assert load_shape(read_bytes(path), path).shape == (12, 3, 3)
    original = json.loads(path.read_text())
    for uri in ("../model.bin", "/etc/passwd", "file:///etc/passwd", "..%2Fa.bin"):
        original["buffers"][0]["uri"] = uri
        data = json.dumps(original).encode()
        assert embed_buffers(data, lambda name: pytest.fail(f"opened {name}")) == data
        with pytest.raises(ValueError, match="in another file"):
            read_gltf(data)
    path.write_text(json.dumps(original | {"buffers": [{"uri": "gone.bin", "byteLength": 9}]}))
    with pytest.raises(InputError, match=r"gone\.bin cannot be read"):
        read_bytes(path)


ACCESSOR = {"componentType": 5126, "type": "VEC3", "count": 4, "bufferView": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accessors": [{"componentType": 5126, "type": "VEC3", "count": 4}]}, "without compression"),
        ({"accessors": [ACCESSOR | {"count": 10**12}]}, "many times its size"),
        ({"accessors": [ACCESSOR | {"count": 5}]}, "ends before"),
        ({"accessors": [ACCESSOR | {"byteOffset": -12}]}, "ends before"),
        ({"bufferViews": [{"buffer": 0, "byteLength": 10000}]}, "ends before"),
        ({"bufferViews": [{"buffer": 0, "byteLength": 48, "byteStride": -12}]}, "ends before"),
        ({"extensionsRequired": ["KHR_draco_mesh_compression"]}, "requires KHR_draco_mesh_compression"),
        ({"nodes": [{"children": [0], "mesh": 0}]}, "no tree"),
        ({"meshes": mesh(1)}, "no triangles and no points"),
        ({"asset": {"version": "1.0"}}, "not of glTF's version 2"),
    ],
)
def test_what_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_gltf(glb([SQUARE], **({"meshes": mesh(5)} | change)))


def test_a_small_scene_cannot_place_one_mesh_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polygons, "MAX_TRIANGLES", 100)
    nodes: list[dict[str, Any]] = [{"children": list(range(1, 60))}, *({"mesh": 0} for _ in range(59))]
    with pytest.raises(ValueError, match="more than 100 triangles"):
        read_gltf(glb([SQUARE], meshes=mesh(5), nodes=nodes))
