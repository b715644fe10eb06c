"""From a file to a network's frame: what is drawn, where it lies, and every refusal."""

import io
import sys
from pathlib import Path, PurePath

import numpy as np
import pytest
import trimesh

from dgcnn_ws.datasets import shape_file
from dgcnn_ws.datasets.shape_file import load_points, memory_bound, read_bytes
from dgcnn_ws.errors import InputError

OFF = PurePath("a.off")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def npy(points: object) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.asarray(points, np.float64))
    return stream.getvalue()


def off(mesh: trimesh.Trimesh) -> bytes:
    return str(mesh.export(file_type="off")).encode()


def test_points_are_spread_by_area_and_normalised() -> None:
    # Two squares of sides 1 and 3, far apart along x: nine times the points on one of them.
    small, large = (trimesh.creation.box(extents=(s, s, 1e-9)) for s in (1, 3))
    large.apply_translation((1e4, 0, 0))
    points = load_points(off(small + large), OFF, 20000, "y", rng())
    assert points.shape == (20000, 3)
    assert np.allclose(points.mean(0), 0, atol=1e-12)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
    assert (points[:, 0] > 0).mean() == pytest.approx(0.9, abs=0.01)


def test_z_up_becomes_y_up_by_a_rotation() -> None:
    cone = trimesh.creation.cone(radius=0.5, height=3)  # its tip points along z
    cone.apply_translation((10, 20, 30))
    upright = load_points(off(cone), OFF, 4096, "z", rng())
    as_it_is = load_points(off(cone), OFF, 4096, "y", rng())
    assert upright[np.linalg.norm(upright, axis=1).argmax(), 1] > 0.9
    turn = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    assert np.allclose(upright, as_it_is @ turn.T)
    assert np.linalg.det(turn) == 1  # shapes are not mirrored


def test_clouds_give_their_own_points_each_once() -> None:
    cloud = np.random.default_rng(1).normal(size=(300, 3))
    drawn = load_points(npy(cloud), PurePath("a.npy"), 200, "y", rng())
    assert len(np.unique(drawn, axis=0)) == 200
    everything = load_points(npy(cloud), PurePath("a.NPY"), 1000, "y", rng())
    assert everything.shape == (300, 3)
    centred = cloud - cloud.mean(0)
    expected = centred / np.linalg.norm(centred, axis=1).max()
    assert np.allclose(np.sort(everything, axis=0), np.sort(expected, axis=0))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_any_scale_gives_the_same_cloud(scale: float) -> None:
    cloud = np.random.default_rng(1).normal(size=(50, 3))
    drawn = load_points(npy(cloud * scale), PurePath("a.npy"), 50, "y", rng())
    assert np.allclose(drawn, load_points(npy(cloud), PurePath("a.npy"), 50, "y", rng()), atol=1e-9)


@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (b"", "a.dxf", "ends in none of"),
        (b"", "a.off", "cannot be read as .off"),
        (b"OFF\n1000000000000 1000000000000 0\n0 0 0\n", "a.off", "cannot be read as .off"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "a.off", "only triangles without area"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 nan 0\n3 0 1 2\n", "a.off", "NaN or infinite"),
        (b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "a.off", "names a vertex that there is not"),
        (b"OFF\n0 0 0\n", "a.off", "neither triangles nor points"),
        (b"v 1 2 3\nv 1 2 3\n", "a.obj", "single point"),
        (npy([[0, 0, 0]] * 9), "a.npy", "single point"),
        (npy([[1e300, 0, 0], [0, np.inf, 0]]), "a.npy", "NaN or infinite"),
        (npy(np.zeros((0, 3))), "a.npy", "neither triangles nor points"),
        (b"ply\nformat ascii 1.0\nelement vertex 999999999999\nproperty float x\nend_header\n0\n", "a.ply", "as .ply"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(data: bytes, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_points(data, PurePath(name), 100, "z", rng())
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value) and str(caught.value).isprintable()


def test_an_unknown_axis() -> None:
    with pytest.raises(InputError, match="--up 'x' is unknown"):
        load_points(npy(np.eye(3)), PurePath("a.npy"), 3, "x", rng())


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
        load_points(npy(np.ones((1 << 20, 3))), PurePath("a.npy"), 100, "z", rng())
