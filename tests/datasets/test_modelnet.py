"""ModelNet: splits against the definition, bad arguments, and the real data."""

import os
from collections.abc import Callable
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


def test_root_may_be_the_layout_folder_itself_but_not_another_data_set(root: Path) -> None:
    assert len(ModelNet40(root / FOLDER, "test", num_points=4)) == 3
    with pytest.raises(InputError, match=r"ModelNet10 is not at .*--data-root"):
        ModelNet10(root / FOLDER, "test", num_points=4)


def rows(clouds: PointClouds) -> set[bytes]:
    return {cloud[:4].numpy().tobytes() for cloud in clouds.points}


def test_train_and_val_partition_trainval_per_class(root: Path) -> None:
    parts = {split: ModelNet40(root, split, num_points=4, val_fraction=0.3) for split in ("train", "val", "trainval")}
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
        ({"num_points": 33}, "stores 32 points a cloud; lower --num-points from 33"),
        ({"num_points": 0}, "at least 1 point"),
        ({"split": "val", "val_fraction": 0.0}, "between 0 and 1"),
        ({"split": "val", "split_seed": -1}, "must not be negative"),
    ],
)
def test_bad_arguments(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelNet40(root, **{"split": "test", "num_points": 4, **options})  # type: ignore[arg-type]


def test_missing_folder_names_the_path_and_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        ModelNet40(tmp_path, "test", num_points=4)
    message = str(error.value)
    assert "\n" not in message
    for words in (str(tmp_path / FOLDER), "--data-root", "--dataset shapes"):
        assert words in message


def test_a_split_without_clouds(root: Path, write_file: Callable[..., None]) -> None:
    write_file(root / FOLDER / "ply_data_test0.h5", [])
    with pytest.raises(InputError, match="The test split holds no points"):
        ModelNet40(root, "test", num_points=4)


def test_point_clouds_refuse_shapes_that_disagree() -> None:
    with pytest.raises(InputError, match="labels"):
        PointClouds(torch.zeros(2, 5, 3), torch.zeros(3), ["a"])


def test_load_dataset_by_name(root: Path) -> None:
    assert sorted(DATASETS) == ["folder", "modelnet10", "modelnet40", "shapes"]
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
        lines = [line for file in files for line in (folder / f"ply_data_{file}_names.txt").read_text().split()]
        assert [clouds.class_names[label] for label in clouds.labels] == [line.split("/")[0] for line in lines]


@needs_modelnet10
def test_modelnet10_validation_is_a_tenth_of_every_class() -> None:
    train, val = (ModelNet10(SHARED, split, num_points=1) for split in ("train", "val"))
    in_train, in_val = np.bincount(train.labels), np.bincount(val.labels)
    assert len(train) + len(val) == 3928
    assert np.abs(in_val - 0.1 * (in_train + in_val)).max() <= 0.5
