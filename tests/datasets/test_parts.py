"""Parts of Shapes: they stay with their points and clouds in every split."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dgcnn_ws.datasets import PartClouds, PointClouds, Shapes, load_parts
from dgcnn_ws.datasets.built_in import shapes
from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.errors import InputError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shapes, "PER_CLASS", {"train": 4, "test": 2})
    Shapes(tmp_path)
    return tmp_path


@pytest.mark.parametrize("split", ["train", "val", "trainval", "test"])
def test_every_point_keeps_its_part(root: Path, split: str) -> None:
    clouds, plain = load_parts("shapes", root, split, 64), Shapes(root, split, 64)
    assert torch.equal(clouds.points, plain.points) and torch.equal(clouds.labels, plain.labels)
    stored = {}
    with h5py.File(root / f"shapes_ply_hdf5_2048/ply_data_{'test' if split == 'test' else 'train'}0.h5") as file:
        for points, parts in zip(file["data"][:], file["part"][:], strict=True):
            stored |= {tuple(point): part for point, part in zip(points[:64], parts[:64], strict=True)}
    found = [stored[tuple(point)] for point in clouds.points.flatten(0, 1).numpy()]
    assert clouds.parts.flatten().tolist() == found
    for cloud in range(len(clouds) if split != "test" else 0):  # a training cloud has no part that its category lacks
        assert clouds.category_parts[clouds.labels[cloud], clouds.parts[cloud]].all()


def test_a_category_has_the_parts_of_its_objects(root: Path) -> None:
    clouds = load_parts("shapes", root, "test", 32)
    parts = {
        name: {clouds.part_names[part] for part in np.flatnonzero(row)}
        for name, row in zip(clouds.class_names, clouds.category_parts, strict=True)
    }
    assert parts["chair"] >= {"back", "leg", "seat"} and "shade" not in parts["chair"]
    assert "shade" in parts["lamp"] and "seat" not in parts["lamp"]


def test_batches_hold_category_and_parts(root: Path) -> None:
    clouds = load_parts("shapes", root, "train", 16)
    for points, targets in Loader(clouds, 5, shuffle=True):
        assert targets.shape == (len(points), 17)
        for point, target in zip(points, targets, strict=True):
            (row,) = torch.nonzero((clouds.points == point).all(2).all(1))
            assert target[0] == clouds.labels[row] and torch.equal(target[1:], clouds.parts[row][0])


def test_errors(root: Path) -> None:
    with pytest.raises(InputError, match="'modelnet40' knows no parts; choose one of shapes"):
        load_parts("modelnet40", root)
    clouds = PointClouds(torch.zeros(2, 3, 3), torch.zeros(2), ["a"])
    with pytest.raises(InputError, match=r"outside 0\.\.1"):
        PartClouds(clouds, torch.full((2, 3), 2), ["x", "y"], torch.ones(1, 2).bool())
    with pytest.raises(InputError, match="do not fit points"):
        PartClouds(clouds, torch.zeros(2, 4).long(), ["x", "y"], torch.ones(1, 2).bool())


@pytest.mark.parametrize("damage", [lambda part: part[:, :7], lambda part: part + 200, lambda part: part[:3]])
def test_a_damaged_file(root: Path, damage: object) -> None:
    with h5py.File(root / "shapes_ply_hdf5_2048/ply_data_train0.h5", "r+") as file:
        part = file["part"][:]
        del file["part"]
        file["part"] = damage(part)  # type: ignore[operator]
    with pytest.raises(InputError, match="replace the file"):
        load_parts("shapes", root, "test")
