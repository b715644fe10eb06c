"""Counts, bounds and duplicates against data in which they are known."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dgcnn_ws.datasets import ModelNet40
from dgcnn_ws.datasets.looking.census import (
    StoredSplit,
    bounds,
    count_classes,
    find_duplicates,
    fingerprint,
    read_stored,
)
from dgcnn_ws.errors import InputError

FOLDER = "modelnet40_ply_hdf5_2048"


def test_counts_are_those_of_the_splits_that_training_uses(root: Path) -> None:
    splits, names = read_stored(root / FOLDER)
    counts = count_classes(splits, names)
    for part in ("train", "val", "test"):
        labels = ModelNet40(root, part, num_points=4).labels
        assert [counts[name][part] for name in names] == np.bincount(labels, minlength=3).tolist()


def test_places_are_the_rows_of_the_files(root: Path) -> None:
    splits, _ = read_stored(root / FOLDER)
    for split in splits.values():
        for points, place in zip(split.points, split.places, strict=True):
            name, row = place.rstrip("]").split("[")
            with h5py.File(root / FOLDER / name) as file:
                assert np.array_equal(file["data"][int(row)], points)


def test_files_of_different_sizes_are_read_as_far_as_all_go(root: Path, write_file: Callable[..., None]) -> None:
    write_file(root / FOLDER / "ply_data_test0.h5", [0, 1], points=20)
    splits, _ = read_stored(root / FOLDER)
    assert {split.points.shape[1] for split in splits.values()} == {20}


def test_bounds() -> None:
    points = np.zeros((2, 4, 3), np.float32)
    points[0] = [[-1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    points[1] = [[0, 3, 4], [0, 3, 4], [0, 0, -2], [0, 2, -2]]
    measured = bounds(StoredSplit(points, np.zeros(2, int), ["", ""]))
    assert measured == {"min": [-1, 0, -2], "max": [1, 3, 4], "radius": [1, 5], "largest_offset": np.sqrt(2**2 + 1**2)}


def test_a_radius_whose_square_is_no_float32() -> None:
    points = np.full((1, 2, 3), 1e30, np.float32)
    measured = bounds(StoredSplit(points, np.zeros(1, int), [""]))
    assert measured is not None and measured["radius"] == pytest.approx([3**0.5 * 1e30] * 2)


def test_a_split_without_clouds_has_no_bounds(root: Path, write_file: Callable[..., None]) -> None:
    write_file(root / FOLDER / "ply_data_test0.h5", [])
    splits, names = read_stored(root / FOLDER)
    assert bounds(splits["test"]) is None and not find_duplicates(splits)
    assert sum(row["test"] for row in count_classes(splits, names).values()) == 0


def test_planted_duplicates_are_found_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.normal(size=(n, 50, 3)).astype(np.float32) for n in (6, 4))
    train[4] = train[1][rng.permutation(50)]  # another order
    test[0], test[3] = train[1], test[2]
    train[5] = train[0]
    train[5, 7, 1] = np.nextafter(train[0, 7, 1], np.float32(9))  # not the same: one bit
    splits = {
        "train": StoredSplit(train, np.array([0, 0, 1, 1, 1, 0]), [f"a[{i}]" for i in range(6)]),
        "test": StoredSplit(test, np.array([0, 0, 1, 1]), [f"b[{i}]" for i in range(4)]),
    }
    across, within = find_duplicates(splits)
    assert across.clouds == [("train", "a[1]", 0), ("train", "a[4]", 1), ("test", "b[0]", 0)]
    assert across.splits == {"train", "test"} and across.has_two_labels
    assert within.clouds == [("test", "b[2]", 1), ("test", "b[3]", 1)]
    assert within.splits == {"test"} and not within.has_two_labels


def test_a_repeated_point_counts_as_often_as_it_is_there() -> None:
    a, b = np.float32([1, 2, 3]), np.float32([4, 5, 6])
    assert fingerprint(np.stack([a, a, b])) == fingerprint(np.stack([b, a, a]))
    assert fingerprint(np.stack([a, a, b])) != fingerprint(np.stack([a, b, b]))


def test_minus_zero_is_zero() -> None:
    assert fingerprint(np.float32([[0.0, 1, 2]])) == fingerprint(np.float32([[-0.0, 1, 2]]))


def test_a_damaged_folder_is_an_input_error(root: Path) -> None:
    (root / FOLDER / "ply_data_train1.h5").write_bytes(b"no HDF5")
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        read_stored(root / FOLDER)
