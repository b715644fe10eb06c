"""Scanners' files: PCD in its three encodings, LAS and LAZ, each as its library writes it."""

import io
import sys

import laspy
import lzf
import numpy as np
import pytest

from dgcnn_ws.datasets.formats.by_library.apart import read_apart
from dgcnn_ws.datasets.formats.by_library.las import read_las
from dgcnn_ws.datasets.formats.pcd import read_pcd

POINTS = np.random.default_rng(0).uniform(-1, 1, (50, 3)).astype("f4")
HEAD = "VERSION .7\nFIELDS rgb z y x _ _\nSIZE 4 4 8 4 1 2\nTYPE U F F F U I\nCOUNT 1 1 1 1 3 1\nWIDTH 50\nHEIGHT 1\n"
ROW = np.dtype([("rgb", "<u4"), ("z", "<f4"), ("y", "<f8"), ("x", "<f4"), ("a", "u1", 3), ("b", "<i2")])


def rows() -> np.ndarray:
    table = np.ones(50, ROW)
    table["x"], table["y"], table["z"] = POINTS.T
    return table


def pcd(encoding: str, newline: str = "\n") -> bytes:
    table = rows()
    if encoding == "ascii":
        lines = [" ".join(map(str, (7, row["z"], row["y"], row["x"], 1, 2, 3, 4))) for row in table]
        body = newline.join(lines).encode()
    elif encoding == "binary":
        body = table.tobytes()
    else:  # column by column
        raw = b"".join(np.ascontiguousarray(table[name]).tobytes() for name in ROW.names or ())
        packed = lzf.compress(raw) or b""
        body = np.array([len(packed), len(raw)], "<u4").tobytes() + packed
    return f"# .PCD v.7\n{HEAD}POINTS 50\nDATA {encoding}\n".replace("\n", newline).encode() + body


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_pcd_of_every_encoding_with_fields_in_any_order(encoding: str, newline: str) -> None:
    assert np.allclose(read_pcd(pcd(encoding, newline)), POINTS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"VERSION .7\n", "no header"),
        (pcd("binary")[:-20], "ends before its 50 points"),
        (pcd("binary").replace(b"POINTS 50", b"POINTS 1000000000000"), "ends before"),
        (pcd("ascii") + b" 5", "numbers, not 50 rows"),
        (pcd("binary_compressed").replace(b"POINTS 50", b"POINTS 51"), "not of the size"),
        (pcd("binary").replace(b"rgb z y x", b"rgb z y q"), "not x, y and z"),
        (pcd("binary").replace(b"DATA binary", b"DATA nothing"), "none of PCD's encodings"),
        (pcd("binary").replace(b"COUNT 1 1 1 1 3 1", b"COUNT 1 1 1"), "do not agree"),
    ],
)
def test_pcd_that_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_pcd(data)


def las(packed: bool, version: str = "1.4") -> bytes:
    header = laspy.LasHeader(point_format=3, version=version)
    header.scales, header.offsets = np.full(3, 1e-5), np.array([500_000.0, 4_000_000.0, 0.0])
    cloud, stream = laspy.LasData(header), io.BytesIO()
    cloud.x, cloud.y, cloud.z = (POINTS + header.offsets).T
    cloud.write(stream, do_compress=packed)
    return stream.getvalue()


@pytest.mark.parametrize("version", ["1.2", "1.4"])
@pytest.mark.parametrize("packed", [False, True])
def test_las_and_laz_in_map_coordinates(packed: bool, version: str) -> None:
    assert np.allclose(read_las(las(packed, version)), POINTS + np.array((500_000.0, 4_000_000.0, 0.0)), atol=1e-5)


def test_a_las_that_declares_more_than_it_holds() -> None:
    data = bytearray(las(False, "1.2"))
    data[107:111] = (10**9).to_bytes(4, "little")  # the number of points
    with pytest.raises(ValueError, match="more than its bytes can hold"):
        read_las(bytes(data))


def test_a_las_that_was_cut_off_within_its_header() -> None:
    for packed in (False, True):
        with pytest.raises(ValueError, match="more records than its bytes hold"):
            read_las(las(packed)[:300])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.abort()", "crashed on it"),
        ("x = bytes(1 << 40)", "MemoryError"),
        ("raise OSError('no such scan')", "no such scan"),
        ("pass", "no reason given"),
    ],
)
def test_a_library_that_fails_apart_is_one_file_that_cannot_be_read(code: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_apart(code, b"", ".laz")


def test_a_missing_library_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, data, read in (("laspy", las(False), read_las), ("lzf", pcd("binary_compressed"), read_pcd)):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ValueError, match=r"needs .*: pip install 'dgcnn_ws\[formats\]'"):
            read(data)
