"""ModelNet from HDF5: splits against the definition, refusal of every kind of bad file, and the real data."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dgcnn_ws.datasets import DATASETS, load_dataset
from dgcnn_ws.datasets.modelnet import HDF5Clouds, ModelNet10, ModelNet40, PointClouds
from dgcnn_ws.errors import InputError

FOLDER = "modelnet40_ply_hdf5_2048"
SHARED = Path(os.environ.get("DGCNN_WS_DATA", Path(__file__).parents[3] / "shared"))
needs_modelnet10 = pytest.mark.skipif(ModelNet10.find(SHARED) is None, reason="ModelNet10 is not at hand")


def write_file(path: Path, labels: list[int], points: int = 32, seed: int = 0) -> np.ndarray:
    data = np.random.default_rng(seed).normal(size=(len(labels), points, 3)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["data"] = data
        file["label"] = np.asarray(labels, np.uint8)[:, None]
    return data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three classes (10, 5 and 1 training clouds) in two files, listed against their numeric order."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / "shape_names.txt").write_text("chair\ncup\nlamp\n")
    (folder / "train_files.txt").write_text(
        f"data/{FOLDER}/ply_data_train1.h5\n../../etc/ply_data_train0.h5\n\n"
    )
    (folder / "test_files.txt").write_text("ply_data_test0.h5\n")
    write_file(folder / "ply_data_train0.h5", [0, 1] * 4, seed=0)
    write_file(folder / "ply_data_train1.h5", [0] * 6 + [1, 2], seed=1)
    write_file(folder / "ply_data_test0.h5", [2, 1, 0], seed=2)
    return tmp_path


def change(root: Path, name: str = "ply_data_test0.h5") -> h5py.File:
    return h5py.File(root / FOLDER / name, "a")


def replace(root: Path, name: str, value: np.ndarray) -> None:
    with change(root) as file:
        del file[name]
        file[name] = value


def test_reads_the_listed_files_in_order(root: Path) -> None:
    clouds = ModelNet40(root, "trainval", num_points=8)
    stored = []
    for name in ("ply_data_train1.h5", "ply_data_train0.h5"):
        with h5py.File(root / FOLDER / name) as file:
            stored.append(file["data"][:, :8])
    assert np.array_equal(clouds.points.numpy(), np.concatenate(stored))
    assert clouds.labels.tolist() == [0] * 6 + [1, 2] + [0, 1] * 4
    assert (clouds.points.dtype, clouds.labels.dtype) == (torch.float32, torch.int64)
    assert clouds.class_names == ["chair", "cup", "lamp"] and clouds.num_classes == 3
    points, label = clouds[7]
    assert points.shape == (8, 3) and label == 2 and len(clouds) == 16
    assert repr(clouds) == "ModelNet40(trainval: 16 clouds of 8 points, 3 classes)"


def test_without_a_list_files_come_in_numeric_order(root: Path) -> None:
    folder = root / FOLDER
    (folder / "train_files.txt").unlink()
    write_file(folder / "ply_data_train10.h5", [2], seed=3)
    write_file(folder / "ply_data_train2.h5", [1], seed=4)
    labels = ModelNet40(root, "trainval", num_points=4).labels.tolist()
    assert labels == [0, 1] * 4 + [0] * 6 + [1, 2] + [1] + [2]


def test_root_may_be_the_layout_folder_itself_but_not_another_data_set(root: Path) -> None:
    assert len(ModelNet40(root / FOLDER, "test", num_points=4)) == 3
    with pytest.raises(InputError, match=r"ModelNet10 is not at .*--data-root"):
        ModelNet10(root / FOLDER, "test", num_points=4)


def test_flat_labels_and_float64_coordinates_are_read_too(root: Path) -> None:
    replace(root, "label", np.array([2, 1, 0], np.int64))
    replace(root, "data", np.full((3, 32, 3), 0.1))
    clouds = ModelNet40(root, "test", num_points=4)
    assert clouds.labels.tolist() == [2, 1, 0] and clouds.points.eq(np.float32(0.1)).all()


def rows(clouds: PointClouds) -> set[bytes]:
    return {cloud[:4].numpy().tobytes() for cloud in clouds.points}


def test_train_and_val_partition_trainval_per_class(root: Path) -> None:
    parts = {
        split: ModelNet40(root, split, num_points=4, val_fraction=0.3)
        for split in ("train", "val", "trainval")
    }
    assert rows(parts["train"]) | rows(parts["val"]) == rows(parts["trainval"])
    assert not rows(parts["train"]) & rows(parts["val"])
    # 30 % of 10 is 3, of 5 rounds to 2, and a single cloud stays in train
    assert np.bincount(parts["val"].labels, minlength=3).tolist() == [3, 2, 0]
    assert np.bincount(parts["train"].labels, minlength=3).tolist() == [7, 3, 1]


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_each_part_keeps_a_cloud_of_every_class_with_two(root: Path, fraction: float) -> None:
    for split in ("train", "val"):
        labels = ModelNet40(root, split, num_points=4, val_fraction=fraction).labels
        assert {0, 1} <= set(labels.tolist())


def test_the_split_depends_on_its_seed_alone(root: Path) -> None:
    few, many = ModelNet40(root, "val", num_points=4), ModelNet40(root, "val", num_points=32)
    assert rows(few) == rows(many)
    seeds = {frozenset(rows(ModelNet40(root, "val", num_points=4, split_seed=seed))) for seed in range(6)}
    assert len(seeds) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "no split 'dev'"),
        ({"num_points": 33}, "stores 32 points a cloud; lower --points from 33"),
        ({"num_points": 0}, "at least 1 point"),
        ({"split": "val", "val_fraction": 0.0}, "between 0 and 1"),
        ({"split": "val", "split_seed": -1}, "must not be negative"),
    ],
)
def test_bad_arguments(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelNet40(root, **{"split": "test", "num_points": 4, **options})  # type: ignore[arg-type]


def refused(root: Path) -> str:
    with pytest.raises(InputError) as error:
        ModelNet40(root, "test", num_points=4)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_folder_names_the_path_and_the_ways_out(tmp_path: Path) -> None:
    message = refused(tmp_path)
    for words in (str(tmp_path / FOLDER), "--data-root", "main.py download modelnet40", "--dataset shapes"):
        assert words in message


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


@pytest.mark.parametrize(
    "value", [np.zeros((3, 32)), np.zeros((3, 32, 4)), np.zeros((2, 32, 3)), np.float32(1)]
)
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


def test_external_and_soft_links_are_refused(root: Path) -> None:
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
        file.create_dataset(
            "data", (3, 32, 3), "f4", external=[(str(root / "secret"), 0, h5py.h5f.UNLIMITED)]
        )
    assert "`data` is stored in other files, which is refused" in refused(root)


def test_virtual_dataset_is_refused(root: Path) -> None:
    write_file(root / "other.h5", [0, 1, 2])
    layout = h5py.VirtualLayout((3, 32, 3), "f4")
    layout[:] = h5py.VirtualSource(root / "other.h5", "data", (3, 32, 3))
    with change(root) as file:
        del file["data"]
        file.create_virtual_dataset("data", layout)
    assert "`data` is stored in other files, which is refused" in refused(root)


def test_a_split_without_clouds(root: Path) -> None:
    write_file(root / FOLDER / "ply_data_test0.h5", [])
    assert "The test split holds no points" in refused(root)


def test_point_clouds_refuse_shapes_that_disagree() -> None:
    with pytest.raises(InputError, match="labels"):
        PointClouds(torch.zeros(2, 5, 3), torch.zeros(3), ["a"])


def test_load_dataset_by_name(root: Path) -> None:
    assert sorted(DATASETS) == ["modelnet10", "modelnet40", "shapes"]
    clouds = load_dataset("modelnet40", root, "val", 4, val_fraction=0.5)
    assert isinstance(clouds, HDF5Clouds) and np.bincount(clouds.labels).tolist() == [5, 2]
    with pytest.raises(InputError, match="no data set 'scannet'; choose one of shapes"):
        load_dataset("scannet", root)


@needs_modelnet10
def test_modelnet10_as_published() -> None:
    train, test = (ModelNet10(SHARED, split, num_points=2048) for split in ("trainval", "test"))
    assert (len(train), len(test), train.num_classes) == (3928, 899, 10)
    for clouds in (train, test):
        assert set(clouds.labels.tolist()) == set(range(10))
        assert clouds.points.mean(1).abs().max() < 1e-3
        assert (clouds.points.norm(dim=2).amax(1) - 1).abs().max() < 1e-3


@needs_modelnet10
def test_modelnet10_labels_agree_with_the_names_beside_the_files() -> None:
    folder = ModelNet10.locate(SHARED)
    for split, files in (("test", ["test0"]), ("trainval", ["train0", "train1"])):
        clouds = ModelNet10(SHARED, split, num_points=1)
        lines = [
            line for file in files for line in (folder / f"ply_data_{file}_names.txt").read_text().split()
        ]
        assert [clouds.class_names[label] for label in clouds.labels] == [
            line.split("/")[0] for line in lines
        ]


@needs_modelnet10
def test_modelnet10_validation_is_a_tenth_of_every_class() -> None:
    train, val = (ModelNet10(SHARED, split, num_points=1) for split in ("train", "val"))
    in_train, in_val = np.bincount(train.labels), np.bincount(val.labels)
    assert len(train) + len(val) == 3928
    assert np.abs(in_val - 0.1 * (in_train + in_val)).max() <= 0.5
