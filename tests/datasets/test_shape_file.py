"""A shape from a file: every refusal."""

import io
import sys
from pathlib import Path, PurePath

import numpy as np
import pytest

from dgcnn_ws.datasets import shape_file
from dgcnn_ws.datasets.shape_file import ShapeWarning, load_shape, read_bytes
from dgcnn_ws.errors import InputError
from dgcnn_ws.memory_bound import memory_bound


def npy(points: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(points, np.float64))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "a.dxf", r"a\.dxf: \.dxf is not read: export it as \.step\. Read are \.off"),
        (b"", "a.odd", r"a\.odd: \.odd is not read\. Read are"),
        (b"", "a", "its name has no ending"),
        (b"", "a.off", r"a\.off is empty: it has 0 bytes\."),
        (b"", "a.glb", r"a\.glb is empty: it has 0 bytes\."),
        (b"solid\0" * 20, "a.stl", "not as long as its number of triangles says"),
        (b"v 1 2 3\nv 4\n", "a.obj", "fewer than three coordinates"),
        (npy([[1.0, 2, 3]])[:-1], "a.npy", "23 bytes of numbers where its header says 24"),
        (b'{"asset', "a.gltf", "it is cut short, or no glTF"),
        (b"OFF\n1000000000000 1000000000000 0\n0 0 0\n", "a.off", "cannot be read as .off"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 nan 0\n3 0 1 2\n", "a.off", "NaN or infinite"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "a.off", "names a vertex that there is not"),
        (b"OFF\n0 0 0\n", "a.off", "neither triangles nor points"),
        (npy([[1e300, 0, 0], [0, np.inf, 0]]), "a.npy", "NaN or infinite"),
        (npy(np.zeros((0, 3))), "a.npy", "neither triangles nor points"),
        (b"ply\nformat ascii 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n0\n", "a.ply", "as .ply"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(data: bytes, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_shape(data, PurePath(name))
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_files_that_are_missing_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_bytes(tmp_path / "a.off")
    with pytest.raises(InputError, match="cannot be read"):
        read_bytes(tmp_path)
    monkeypatch.setattr(shape_file, "MAX_FILE_BYTES", 10)
    (tmp_path / "a.off").write_bytes(bytes(11))
    with pytest.raises(InputError, match="larger than"):
        read_bytes(tmp_path / "a.off")


@pytest.mark.skipif(sys.platform != "linux", reason="the bound is Linux's")
def test_memory_is_bounded_and_the_bound_is_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryError), memory_bound(1 << 28):
        np.ones(1 << 27)
    assert np.ones(1 << 27).nbytes == 1 << 30

    def hungry(data: bytes) -> None:
        raise MemoryError

    monkeypatch.setitem(shape_file.READERS, ".npy", hungry)
    with pytest.raises(InputError, match="to be read"):
        load_shape(npy(np.ones((1 << 20, 3))), PurePath("a.npy"))


def test_rows_that_a_scanner_left_empty_are_no_points() -> None:
    seen = np.random.default_rng(0).normal(size=(40, 3))
    scan = np.concatenate([seen[:10], np.zeros((5, 3)), seen[10:], np.full((7, 3), np.nan)])
    with pytest.warns(ShapeWarning, match=r"a.npy: 12 of 52 rows are NaN or zeros"):
        assert np.array_equal(load_shape(npy(scan), PurePath("a.npy")), seen)


def test_the_origin_is_a_point(recwarn: pytest.WarningsRecorder) -> None:
    cube = np.array([(x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1)])
    assert load_shape(npy(cube), PurePath("a.npy")).shape == (27, 3)
    assert not recwarn.list
