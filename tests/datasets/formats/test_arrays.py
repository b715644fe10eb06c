"""Arrays as users have them, and as they do not want them."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dgcnn_ws.datasets.formats.arrays import read_npy, read_npz

POINTS = np.arange(12).reshape(4, 3)


def saved(save: Callable[..., None], *arrays: object, **named: object) -> bytes:
    stream = io.BytesIO()
    save(stream, *arrays, **named)
    return stream.getvalue()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.uint8, ">f4"])
@pytest.mark.parametrize("extra", [0, 3])
def test_npy_of_any_numbers_and_order(dtype: object, extra: int) -> None:
    array = np.hstack([POINTS, np.ones((4, extra))]).astype(dtype)  # type: ignore[call-overload]
    for order in (array, np.asfortranarray(array)):
        assert np.array_equal(read_npy(saved(np.save, order)), POINTS)


def test_npz_takes_the_only_array_or_the_one_named_points() -> None:
    assert np.array_equal(read_npz(saved(np.savez_compressed, POINTS)), POINTS)
    assert np.array_equal(read_npz(saved(np.savez, label=np.ones(1), points=POINTS)), POINTS)
    with pytest.raises(ValueError, match="several arrays"):
        read_npz(saved(np.savez, a=POINTS, b=POINTS))


def test_a_header_that_claims_more_than_the_file_takes_no_memory() -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100)
    with pytest.raises(ValueError):
        read_npy(data)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object]]:
        return Path.mkdir, (self.target,)


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    array = np.array([Malicious(target)] * 3, object)
    with pytest.raises(ValueError, match="not of numbers"):
        read_npy(saved(np.save, array))
    with pytest.raises(ValueError, match="not of numbers"):
        read_npz(saved(np.savez, points=array))
    with pytest.raises(ValueError):
        read_npy(pickle.dumps(Malicious(target)))
    assert not target.exists()


@pytest.mark.parametrize("shape", [(3,), (4, 2), (2, 4, 3), ()])
def test_arrays_that_are_no_cloud(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="array of shape"):
        read_npy(saved(np.save, np.zeros(shape)))


def test_rows_of_named_fields() -> None:
    rows = np.zeros(4, [("intensity", "u1"), ("Z", "f4"), ("y", "f8"), ("x", "i2")])
    rows["x"], rows["y"], rows["Z"] = POINTS.T
    assert np.array_equal(read_npy(saved(np.save, rows)), POINTS)
    with pytest.raises(ValueError, match="fields are called intensity"):
        read_npy(saved(np.save, rows[["intensity", "y"]]))


@pytest.mark.parametrize("shape", [(3, 500), (6, 500), (3, 6), (20, 64)])
def test_points_in_columns_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"save it as \({shape[1]}, {shape[0]}\)"):
        read_npy(saved(np.save, np.random.default_rng(0).normal(size=shape)))


@pytest.mark.parametrize("start", [0, 1])
def test_a_column_that_counts_rows_is_no_coordinate(start: int) -> None:
    numbered = np.column_stack([np.arange(start, start + 50), np.random.default_rng(0).normal(size=(50, 3))])
    with pytest.raises(ValueError, match="counts the rows"):
        read_npy(saved(np.save, numbered))


def test_an_archive_of_vertices_and_faces_is_a_mesh() -> None:
    corners = np.eye(3)
    data = saved(np.savez, vertices=corners, faces=np.array([[0, 1, 2], [2, 1, 0]]), normals=corners)
    assert np.array_equal(read_npz(data), corners[[[0, 1, 2], [2, 1, 0]]])
