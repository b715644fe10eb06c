"""Mesh readers against trimesh's own meshes and closed forms."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from dgcnn_ws.datasets.formats.gltf import read_gltf
from dgcnn_ws.datasets.formats.obj import read_obj
from dgcnn_ws.datasets.formats.off import read_off
from dgcnn_ws.datasets.formats.ply import read_ply
from dgcnn_ws.datasets.formats.stl import read_stl


def area(triangles: np.ndarray) -> float:
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2)


def export(mesh: trimesh.Trimesh | trimesh.Scene, kind: str, **options: object) -> bytes:
    data = mesh.export(file_type=kind, **options)
    return data.encode() if isinstance(data, str) else data


BOX = trimesh.creation.box(extents=(1, 2, 3))
READERS = {
    "off": read_off,
    "obj": read_obj,
    "ply": read_ply,
    "stl": read_stl,
    "glb": read_gltf,
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("off", {}),
        ("obj", {}),
        ("ply", {}),
        ("ply", {"encoding": "ascii"}),
        ("stl", {}),
        ("stl_ascii", {}),
        ("glb", {}),
    ],
)
def test_every_format_gives_the_box_back(kind: str, options: dict[str, object]) -> None:
    triangles = READERS[kind[:3]](export(BOX, kind, **options))
    assert triangles.shape == (12, 3, 3)
    assert area(triangles) == pytest.approx(2 * (2 + 3 + 6))
    expected = np.sort(BOX.triangles.reshape(12, -1), axis=0)
    assert np.allclose(np.sort(triangles.reshape(12, -1), axis=0), expected, atol=1e-6)


SQUARE = "0 0 0\n2 0 0\n2 2 0\n0 2 0\n"


@pytest.mark.parametrize(
    "text",
    [
        f"OFF\n4 2 0\n{SQUARE}3 0 1 2\n3 0 2 3\n",
        f"OFF4 2 0\n{SQUARE}3 0 1 2\n3 0 2 3\n",  # a header that runs on, as in ModelNet40
        f"OFF 4 2 0\n\n# remark 1 2 3\n{SQUARE}3 0 1 2\n3 0 2 3 # so\n",
        f"OFF\r\n4 1 0\r\n{SQUARE}4 0 1 2 3\r\n",  # a quad
        f"OFF4 2 0\n{SQUARE}3 0 1 2 0.5 0.5 0.5\n3 0 2 3 0.5 0.5 0.5\n",  # colours
        "COFF\n4 1 0\n" + SQUARE.replace("\n", " 255 0 0 255\n") + "4 0 1 2 3\n",
    ],
)
def test_the_many_kinds_of_off(text: str) -> None:
    assert area(read_off(text.encode())) == pytest.approx(4)


def test_mixed_polygons() -> None:
    corners = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n-1 0.5 0\n"
    assert area(read_off(f"OFF\n5 2 0\n{corners}4 0 1 2 3\n3 0 3 4\n".encode())) == pytest.approx(1.5)
    assert area(read_off(f"OFF\n5 1 0\n{corners}5 0 1 2 3 4\n".encode())) == pytest.approx(1.5)


def test_obj_with_textures_materials_and_parts_names_no_other_file(tmp_path: Path) -> None:
    vertices = "".join(f"v {x} {y} 0\nvt 0 0\nvn 0 0 1\n" for x, y in ((0, 0), (2, 0), (2, 2), (0, 2)))
    faces = "usemtl a\nf 1/1/1 2/2/2 3/3/3\nusemtl b\nf 1//1 3//3 4//4 # a-b\n"
    text = f"mtllib /etc/passwd\no part\n{vertices}g one\n{faces}"
    assert area(read_obj(text.encode())) == pytest.approx(4)
    assert area(read_obj((vertices + "f 1 2 \\\n3 4\n").encode())) == pytest.approx(4)


L_SHAPE = "4 0 0\n4 1 0\n1 1 0\n1 4 0\n0 4 0\n0 0 0\n"  # of area 7


def test_concave_polygons_beside_others_in_off() -> None:
    assert area(read_off(f"OFF\n6 1 0\n{L_SHAPE}6 0 1 2 3 4 5\n".encode())) == pytest.approx(7)
    mixed = f"COFF\n6 3 9\n{L_SHAPE}6 0 1 2 3 4 5 0.5 0.5 0.5\n3 0 1 5\n4 0 1 2 5\n"
    assert area(read_off(mixed.encode())) == pytest.approx(7 + 2 + 3.5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n4 0 1 2\n", "a face of 4 corners names 3"),
        ("OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", "4 lines"),
        ("OFF BINARY\n3 1 0\n", "export as ASCII"),
        ("4OFF\n3 1 0\n", "begin with OFF|dimensions"),
        ("ply\n", "begin with OFF"),
    ],
)
def test_off_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_off(text.encode())


def test_obj_by_other_hands() -> None:
    corners = [line.split() for line in L_SHAPE.splitlines()]
    vertices = "".join(f"  v\t{x} {y}\t{z} 1.0 0.5 0.5 0.5\n" for x, y, z in corners)
    assert area(read_obj((vertices + "\tf  1 2 3 4 5 6\n").encode())) == pytest.approx(7)
    assert area(read_obj(("\ufeff" + vertices + "f -6//-1 -5 -4/2/ -3 -2 -1\n").replace("\n", "\r\n").encode())) == 7
    first = "v 0 0 0\nv 1 0 0\nv 0 1 0\nf -3 -2 -1\n"
    later = read_obj((first + first.replace("0 0 0", "0 0 5")).encode())
    assert later[:, 0, 2].tolist() == [0, 5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f 0 1 2\n", "whole numbers from 1"),
        ("f 1 2 2.5\n", "whole numbers from 1"),
        ("f 1 2 4\n", "names a vertex"),
        ("f -1 -2 -4\n", "names a vertex"),
        ("f 1 2\nf 3\n", "three corners"),
        ("f 1 two 3\n", "words where numbers"),
        ("l 1 2 3\n", "drawing of lines"),
        ("cstype bezier\nsurf 0 1 0 1 1 2 3\nend\n", "curved surfaces"),
        ("v 1 2\n", "fewer than three coordinates"),
    ],
)
def test_obj_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_obj(("v 0 0 0\nv 1 0 0\nv 0 1 0\n" + text).encode())


def test_files_without_faces_are_clouds() -> None:
    points = np.arange(12.0).reshape(4, 3)
    assert np.array_equal(read_ply(export(trimesh.PointCloud(points), "ply")), points)
    assert np.array_equal(read_obj(b"v 1 2 3\nv 4 5 6\n"), [[1, 2, 3], [4, 5, 6]])


def test_stl_of_several_solids_is_one_shape() -> None:
    solid = export(BOX, "stl_ascii").decode().replace("solid", "solid part")
    assert read_stl((solid + solid).encode()).shape == (24, 3, 3)
