"""A set of three classes so easy that a network learns it within seconds, in ModelNet's layout."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # tiny tensors: several threads would wait for each other

CLASSES = ["ball", "pole", "sheet"]
NUM_TRAIN, NUM_TEST, NUM_POINTS = 40, 11, 48


def write_clouds(path: Path, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    stretch = np.array([[1, 1, 1], [0.05, 1, 0.05], [1, 0.05, 1]])[labels]
    points = rng.normal(size=(count, NUM_POINTS, 3)) * stretch[:, None]
    points /= np.linalg.norm(points, axis=2).max(1)[:, None, None]
    with h5py.File(path, "w") as file:
        file["data"] = points.astype(np.float32)
        file["label"] = labels.astype(np.uint8)[:, None]


@pytest.fixture(scope="session")
def easy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that holds the easy set under ModelNet10's name."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "modelnet10_ply_hdf5_2048"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        (folder / f"{split}_files.txt").write_text(f"ply_data_{split}0.h5\n")
        write_clouds(folder / f"ply_data_{split}0.h5", count, seed=len(split))
    return root


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
