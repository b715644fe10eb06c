"""One split's files: the order they are read in, and refusal of every kind of bad file."""

import fcntl
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dgcnn_ws.datasets import ModelNet40
from dgcnn_ws.errors import InputError

FOLDER = "modelnet40_ply_hdf5_2048"


def change(root: Path, name: str = "ply_data_test0.h5") -> h5py.File:
    return h5py.File(root / FOLDER / name, "a")


def replace(root: Path, name: str, value: np.ndarray) -> None:
    with change(root) as file:
        del file[name]
        file[name] = value


def test_without_a_list_files_come_in_numeric_order(root: Path, write_file: Callable[..., None]) -> None:
    folder = root / FOLDER
    (folder / "train_files.txt").unlink()
    write_file(folder / "ply_data_train10.h5", [2], seed=3)
    write_file(folder / "ply_data_train2.h5", [1], seed=4)
    labels = ModelNet40(root, "trainval", num_points=4).labels.tolist()
    assert labels == [0, 1] * 4 + [0] * 6 + [1, 2] + [1] + [2]


def test_flat_labels_and_float64_coordinates_are_read_too(root: Path) -> None:
    replace(root, "label", np.array([2, 1, 0], np.int64))
    replace(root, "data", np.full((3, 32, 3), 0.1))
    clouds = ModelNet40(root, "test", num_points=4)
    assert clouds.labels.tolist() == [2, 1, 0] and clouds.points.eq(np.float32(0.1)).all()


def refused(root: Path) -> str:
    with pytest.raises(InputError) as error:
        ModelNet40(root, "test", num_points=4)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_no_lock_is_asked_for(root: Path) -> None:
    """Where a lock cannot be had, as on NFS without its daemon, or from another who holds it."""
    path = next((root / FOLDER).glob("*train*.h5"))
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="lock"):
            h5py.File(path, "r")
        assert len(ModelNet40(root, "train", num_points=4)) > 0


def test_missing_listed_file(root: Path) -> None:
    (root / FOLDER / "ply_data_test0.h5").unlink()
    assert "ply_data_test0.h5 is missing" in refused(root)


def test_repeated_listed_file(root: Path) -> None:
    (root / FOLDER / "test_files.txt").write_text("a/ply_data_test0.h5\nb/ply_data_test0.h5\n")
    assert "twice" in refused(root)


def test_empty_list(root: Path) -> None:
    (root / FOLDER / "test_files.txt").write_text("\n")
    assert "holds no test files" in refused(root)


@pytest.mark.parametrize("content", [b"", b"chair\nchair\n", b"chair\ncup\nla\x1b[2Jmp\n", b"\xff\xfe"])
def test_class_names_that_are_none(root: Path, content: bytes) -> None:
    (root / FOLDER / "shape_names.txt").write_bytes(content)
    assert "shape_names.txt" in refused(root)


@pytest.mark.parametrize("name", ["shape_names.txt", "test_files.txt"])
def test_a_list_that_is_far_too_long(root: Path, name: str) -> None:
    (root / FOLDER / name).write_bytes(b"chair\n" * 200_000)
    assert "is not a list of names" in refused(root)


def test_missing_class_names(root: Path) -> None:
    (root / FOLDER / "shape_names.txt").unlink()
    assert "shape_names.txt is missing" in refused(root)


def test_foreign_file(root: Path) -> None:
    (root / FOLDER / "ply_data_test0.h5").write_bytes(b"<html>404 Not Found</html>" * 100)
    assert "ply_data_test0.h5 cannot be read as HDF5" in refused(root)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.98])
def test_truncated_file(root: Path, share: float) -> None:
    path = root / FOLDER / "ply_data_test0.h5"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "ply_data_test0.h5 cannot be read as HDF5" in refused(root)


def test_damaged_compressed_chunk(root: Path) -> None:
    with change(root) as file:
        del file["data"]
        file.create_dataset(
            "data", data=np.random.default_rng(0).normal(size=(3, 32, 3)).astype("f4"), compression="gzip"
        )
        offset, size = file["data"].id.get_chunk_info(0).byte_offset, file["data"].id.get_chunk_info(0).size
    path = root / FOLDER / "ply_data_test0.h5"
    content = bytearray(path.read_bytes())
    content[offset : offset + size] = bytes(size)
    path.write_bytes(content)
    assert "ply_data_test0.h5 cannot be read as HDF5" in refused(root)


@pytest.mark.parametrize("name", ["data", "label"])
def test_missing_dataset(root: Path, name: str) -> None:
    with change(root) as file:
        del file[name]
    assert f"has no `{name}`" in refused(root)


def test_group_in_place_of_a_dataset(root: Path) -> None:
    with change(root) as file:
        del file["data"]
        file.create_group("data")
    assert "`data` is not an array" in refused(root)


@pytest.mark.parametrize("value", [np.zeros((3, 32)), np.zeros((3, 32, 4)), np.zeros((2, 32, 3)), np.float32(1)])
def test_wrong_shape(root: Path, value: np.ndarray) -> None:
    replace(root, "data", value)
    assert "expected `data` (n, points, 3)" in refused(root)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", np.zeros((3, 32, 3), np.int32)),
        ("data", np.zeros((3, 32, 3), complex)),
        ("label", np.zeros((3, 1), np.float32)),
        ("label", np.array([[b"cup"]] * 3)),
    ],
)
def test_wrong_type(root: Path, name: str, value: np.ndarray) -> None:
    replace(root, name, value)
    assert f"`{name}` is not an array of the expected type" in refused(root)


def test_coordinates_beyond_float32_are_not_finite(root: Path) -> None:
    replace(root, "data", np.full((3, 32, 3), 1e300))
    assert "cloud 0 has NaN or infinite coordinates" in refused(root)


def test_clouds_too_far_from_the_origin_for_float32_are_refused(root: Path) -> None:
    cloud = np.random.default_rng(0).uniform(-1, 1, (3, 32, 3))
    cloud[1] += (5e5, 5.4e6, 200)  # as maps have it
    replace(root, "data", cloud)
    assert "wide, 5.4e+06 from the origin" in refused(root)
    replace(root, "data", 1000 * (cloud - cloud.mean(axis=1, keepdims=True)) + 5000)
    assert len(ModelNet40(root, "test", num_points=4)) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_coordinates_that_are_not_numbers(root: Path, bad: float) -> None:
    with change(root) as file:
        file["data"][1, 2, 0] = bad
    assert "cloud 1 has NaN or infinite coordinates" in refused(root)


@pytest.mark.parametrize(("label", "shown"), [(3, "3"), (255, "255"), (-1, "-1")])
def test_labels_outside_the_classes(root: Path, label: int, shown: str) -> None:
    replace(root, "label", np.array([[0], [label], [1]], np.int64))
    assert f"label {shown} is outside the 3 classes" in refused(root)


def test_declared_size_beyond_the_bound_is_refused_before_allocation(root: Path) -> None:
    with change(root) as file:
        for name, shape in (("data", (2**40, 2048, 3)), ("label", (2**40, 1))):
            del file[name]
            file.create_dataset(name, shape, "f4" if name == "data" else "u1", chunks=(64, *shape[1:]))
    assert "`data` declares" in refused(root)


def test_declared_size_without_data_behind_it_is_refused(root: Path) -> None:
    with change(root) as file:
        del file["data"]
        file.create_dataset("data", (3, 10**6, 3), "f4", chunks=(1, 2048, 3))
    assert "`data` declares 36000000 bytes, more than the 0" in refused(root)


def test_external_and_soft_links_are_refused(root: Path, write_file: Callable[..., None]) -> None:
    write_file(root / "other.h5", [0, 1, 2])
    for link in (h5py.ExternalLink(str(root / "other.h5"), "data"), h5py.SoftLink("/label")):
        with change(root) as file:
            del file["data"]
            file["data"] = link
        assert "`data` is a link to somewhere else, which is refused" in refused(root)


def test_external_storage_is_refused(root: Path) -> None:
    (root / "secret").write_bytes(bytes(3 * 32 * 3 * 4))
    with change(root) as file:
        del file["data"]
        file.create_dataset("data", (3, 32, 3), "f4", external=[(str(root / "secret"), 0, h5py.h5f.UNLIMITED)])
    assert "`data` is stored in other files, which is refused" in refused(root)


def test_virtual_dataset_is_refused(root: Path, write_file: Callable[..., None]) -> None:
    write_file(root / "other.h5", [0, 1, 2])
    layout = h5py.VirtualLayout((3, 32, 3), "f4")
    layout[:] = h5py.VirtualSource(root / "other.h5", "data", (3, 32, 3))
    with change(root) as file:
        del file["data"]
        file.create_virtual_dataset("data", layout)
    assert "`data` is stored in other files, which is refused" in refused(root)
