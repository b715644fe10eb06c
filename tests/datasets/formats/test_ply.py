"""PLY as scanners, modellers and archives write it."""

import io
import struct

import numpy as np
import pytest
import trimesh

from dgcnn_ws.datasets.formats.ply import read_ply

L_SHAPE = [(4, 0, 0), (4, 1, 0), (1, 1, 0), (1, 4, 0), (0, 4, 0), (0, 0, 0)]  # of area 7
XYZ = "property float x\nproperty float y\nproperty float z\n"
LIST = "property list uchar int vertex_indices\n"


def area(triangles: np.ndarray) -> float:
    sides = triangles[:, 1:] - triangles[:, :1]
    return float(np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2)


def ascii_ply(elements: str, rows: str) -> bytes:
    return f"ply\nformat ascii 1.0\ncomment by hand\n{elements}end_header\n{rows}".encode()


def floor(elements: str = "element face 1\n" + LIST, faces: str = "6 0 1 2 3 4 5") -> bytes:
    vertices = "\n".join(f"{x} {y} {z}" for x, y, z in L_SHAPE)
    return ascii_ply(f"element vertex 6\n{XYZ}{elements}", f"{vertices}\n{faces}\n")


def test_a_concave_floor() -> None:
    assert area(read_ply(floor())) == pytest.approx(7)


@pytest.mark.parametrize("change", ["\ufeff{}", "{}", "{}\n\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_text_of_any_system(change: str, newline: str) -> None:
    text = change.format(floor().decode().replace("\n", newline)).encode()
    assert area(read_ply(text)) == pytest.approx(7)


@pytest.mark.parametrize("order", "<>")
def test_binary_triangles_and_quads_with_properties_around_them(order: str) -> None:
    name = {"<": "binary_little_endian", ">": "binary_big_endian"}[order]
    header = f"ply\nformat {name} 1.0\nelement before 2\nproperty list ushort short any\nproperty uchar b\n"
    header += "element vertex 6\nproperty uchar red\nproperty double x\nproperty float y\nproperty short z\n"
    header += f"element face 2\nproperty uchar flag\n{LIST}property list uchar float weights\nend_header\n"
    body = struct.pack(f"{order}HhhBHB", 2, 7, 7, 1, 0, 1)
    corners = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (2, 0, 0), (2, 0, 1)]
    body += b"".join(struct.pack(f"{order}Bdfh", 9, *corner) for corner in corners)
    body += struct.pack(f"{order}BBiiiiBf", 1, 4, 0, 1, 2, 3, 1, 0.5) + struct.pack(f"{order}BBiiiB", 1, 3, 0, 4, 5, 0)
    assert area(read_ply(header.encode() + body)) == pytest.approx(1 + 1)


def test_strips_and_faces_are_one_surface() -> None:
    strips = floor("element tristrips 1\nproperty list int int vertex_indices\n", "8 0 1 2 3 -1 3 4 5")
    assert read_ply(strips).shape == (3, 3, 3)
    both = floor(f"element face 1\n{LIST}element tristrips 1\n{LIST}", "3 0 1 2\n4 0 1 2 3")
    assert read_ply(both).shape == (3, 3, 3)


def test_clouds_and_range_images_of_scanners() -> None:
    points = np.arange(12.0).reshape(4, 3)
    stream = io.BytesIO(trimesh.PointCloud(points).export(file_type="ply"))
    assert np.array_equal(read_ply(stream.getvalue()), points)
    assert read_ply(floor("element range_grid 2\nproperty list uchar int vertex_indices\n", "1 3\n0")).shape == (6, 3)
    assert read_ply(floor("element face 0\n" + LIST, "")).shape == (6, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (floor(f"element patch 1\n{LIST}", "3 0 1 2"), "no faces but elements called 'patch'"),
        (floor("element edge 1\nproperty int vertex1\nproperty int vertex2\n", "0 1"), "elements called 'edge'"),
        (floor("element face 1\nproperty list uchar int corners\n", "3 0 1 2"), "no list called vertex_indices"),
        (floor("element face 2\n" + LIST, "3 0 1 2"), "it ends"),
        (floor("element face 1\n" + LIST, "3 0 1"), "it ends"),
        (floor("element face 1\n" + LIST, "3 0 one 2"), "words where numbers"),
        (floor("element face 1\n" + LIST, "-1 0 1"), "a list has -1 values"),
        (floor("element tristrips 1\n" + LIST, "4 0 1 2 -2"), "a strip names a vertex"),
        (ascii_ply(f"element vertex 1000000000000\n{XYZ}", "0 0 0"), "it ends before"),
        (ascii_ply(f"element vertex 1\n{XYZ}property float x\n", "0 0 0 0"), "names 'x' twice"),
        (ascii_ply("element vertex 1\nproperty float x\n", "0"), "no x, y and z"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\n", "no header"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_ply(data)


@pytest.mark.parametrize("names", ["f_dc_0 opacity", "scale_0 rot_0", "packed_position packed_rotation"])
def test_gaussian_splats_are_called_by_their_name(names: str) -> None:
    properties = "".join(f"property float {name}\n" for name in names.split())
    with pytest.raises(ValueError, match="Gaussian splats"):
        read_ply(ascii_ply(f"element vertex 1\n{XYZ}{properties}", "0 0 0 1 1"))
