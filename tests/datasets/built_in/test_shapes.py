"""Shapes: points spread by area, splits, and files that come out whole and alike."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dgcnn_ws.datasets import Shapes, solids
from dgcnn_ws.datasets.built_in import furniture, shapes
from dgcnn_ws.errors import InputError


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "PER_CLASS", {"train": 3, "test": 2})


def test_points_are_spread_by_area(monkeypatch: pytest.MonkeyPatch) -> None:
    """A big box and a small one, areas 24 and 6: their points come as a binomial draw of 4 : 1."""
    monkeypatch.setattr(shapes, "DIFFICULTY", dict.fromkeys(shapes.DIFFICULTY, 0.0))
    pair: Callable[[np.random.Generator], list[furniture.Piece]] = lambda rng: [  # noqa: E731
        ("body", solids.box(0, 0, 0, 2, 2, 2)),
        ("top", solids.box(9, 0, 0, 1, 1, 1)),
    ]
    monkeypatch.setitem(furniture.CLASSES, "pair", pair)
    points, part = shapes.sample_cloud("pair", np.random.default_rng(0))
    small = part == furniture.PART_NAMES.index("top")
    assert abs(small.mean() - 0.2) < 5 * (0.2 * 0.8 / 2048) ** 0.5
    assert points[small, 0].min() > points[~small, 0].max()
    # each of the big box's six faces carries the same share, and no point lies off them
    cube = points[~small] - (points[~small].min(0) + points[~small].max(0)) / 2
    half = cube.max()
    assert np.allclose(np.abs(cube).max(1), half, rtol=1e-3)
    face = np.abs(cube).argmax(1) * 2 + (np.take_along_axis(cube, np.abs(cube).argmax(1)[:, None], 1)[:, 0] > 0)
    count = np.bincount(face, minlength=6)
    assert np.abs(count - len(cube) / 6).max() < 5 * (len(cube) * 5 / 36) ** 0.5


def test_size() -> None:
    assert {split: count * 16 for split, count in shapes.PER_CLASS.items()} == {"train": 1600, "test": 400}


def test_train_and_test_are_balanced_reproducible_and_different() -> None:
    train, again, test = (shapes.generate(split, per_class=1) for split in ("train", "train", "test"))
    assert train["label"].shape == (16, 1) and sorted(train["label"][:, 0]) == list(range(16))
    assert all(np.array_equal(train[name], again[name]) for name in train)
    assert not np.isin(train["data"][:, 0, 0], test["data"][:, 0, 0]).any()
    assert not np.array_equal(train["data"], shapes.generate("train", seed=1, per_class=1)["data"])


@pytest.mark.usefixtures("small")
def test_files_are_written_once_and_read_like_modelnet(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "data"
    train = Shapes(root, "trainval", num_points=64)
    folder = root / "shapes_ply_hdf5_2048"
    stamp = (folder / "ply_data_train0.h5").stat().st_mtime_ns
    test = Shapes(root, "test", num_points=64)
    assert (len(train), len(test), test.class_names) == (48, 32, list(furniture.CLASSES))
    assert np.bincount(test.labels).tolist() == [2] * 16
    assert (folder / "ply_data_train0.h5").stat().st_mtime_ns == stamp
    assert [path.name for path in root.iterdir()] == [folder.name], "no temporary folder is left"
    with h5py.File(folder / "ply_data_test0.h5") as file:
        assert np.array_equal(file["data"][:, :64], test.points)
        assert file["part"].shape == (32, 2048) and file["part"].dtype == np.uint8
        assert file["part"][:].max() < len((folder / "part_names.txt").read_text().split())


@pytest.mark.usefixtures("small")
def test_files_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Shapes(tmp_path / name, "test")
    for file in (tmp_path / "a" / "shapes_ply_hdf5_2048").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / "shapes_ply_hdf5_2048" / file.name).read_bytes()


@pytest.mark.usefixtures("small")
def test_two_writers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find nothing and generate; one of the renames must lose, and neither caller may notice."""
    both = threading.Barrier(2, timeout=60)
    write = shapes.write_files
    monkeypatch.setattr(shapes, "write_files", lambda folder: (write(folder), both.wait()))
    lengths: list[int] = []
    lock = threading.Lock()  # HDF5 is not made for threads: only the writers' order matters here

    def use() -> None:
        shapes.write_shapes(tmp_path / "shapes_ply_hdf5_2048")
        with lock:
            lengths.append(len(Shapes(tmp_path, "test")))

    threads = [threading.Thread(target=use) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [32, 32]
    assert [path.name for path in tmp_path.iterdir()] == ["shapes_ply_hdf5_2048"]


@pytest.mark.usefixtures("small")
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate = shapes.generate

    def fail(split: str) -> dict[str, np.ndarray]:
        if split == "test":
            raise KeyboardInterrupt
        return generate(split)

    monkeypatch.setattr(shapes, "generate", fail)
    with pytest.raises(KeyboardInterrupt):
        Shapes(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("small")
def test_a_folder_of_another_difficulty_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Shapes(tmp_path, "test")
    monkeypatch.setitem(shapes.DIFFICULTY, "jitter", 0.5)
    with pytest.raises(InputError, match="not written by this version"):
        Shapes(tmp_path, "test")
    recipe = json.loads((tmp_path / "shapes_ply_hdf5_2048" / "recipe.json").read_text())
    assert recipe["difficulty"]["jitter"] != 0.5


def test_a_root_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--data-root"):
        Shapes(tmp_path / "file" / "data")
