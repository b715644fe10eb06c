"""A data root in the HDF5 layout, small enough to write anew for every test."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from dgcnn_ws.datasets.fetching.published import Published

Write = Callable[..., None]


@pytest.fixture
def write_file() -> Write:
    """Writes random clouds with the given labels as one HDF5 file of the layout."""

    def write(path: Path, labels: list[int], points: int = 32, seed: int = 0) -> None:
        data = np.random.default_rng(seed).normal(size=(len(labels), points, 3)).astype(np.float32)
        with h5py.File(path, "w") as file:
            file["data"] = data
            file["label"] = np.asarray(labels, np.uint8)[:, None]

    return write


@pytest.fixture
def root(tmp_path: Path, write_file: Write) -> Path:
    """Three classes (10, 5 and 1 training clouds) in two files, listed against their numeric order."""
    folder = tmp_path / "modelnet40_ply_hdf5_2048"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("chair\ncup\nlamp\n")
    (folder / "train_files.txt").write_text(f"data/{folder.name}/ply_data_train1.h5\n../../etc/ply_data_train0.h5\n\n")
    (folder / "test_files.txt").write_text("ply_data_test0.h5\n")
    write_file(folder / "ply_data_train0.h5", [0, 1] * 4, seed=0)
    write_file(folder / "ply_data_train1.h5", [0] * 6 + [1, 2], seed=1)
    write_file(folder / "ply_data_test0.h5", [2, 1, 0], seed=2)
    return tmp_path


@pytest.fixture
def copy(tmp_path: Path, write_file: Write) -> Path:
    """A good copy of `miniature`: its layout folder under a data root."""
    folder = tmp_path / "original" / "modelnet40_ply_hdf5_2048"
    folder.mkdir(parents=True)
    (folder / "shape_names.txt").write_text("chair\ncup\nlamp\n")
    (folder / "train_files.txt").write_text("ply_data_train0.h5\nply_data_train1.h5\n")
    (folder / "test_files.txt").write_text("ply_data_test0.h5\n")
    write_file(folder / "ply_data_train0.h5", [0, 1, 2], seed=0)
    write_file(folder / "ply_data_train1.h5", [2, 1, 0], seed=1)
    write_file(folder / "ply_data_test0.h5", [1], seed=2)
    return folder


@pytest.fixture
def miniature(copy: Path) -> Published:
    """A published data set of three small files, without mirrors; the checksums are those of `copy`."""
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in copy.glob("*.h5")}
    return Published(
        name="modelnet40",
        folder=copy.name,
        train={name: md5[name] for name in ("ply_data_train0.h5", "ply_data_train1.h5")},
        test={"ply_data_test0.h5": md5["ply_data_test0.h5"]},
        class_names=("chair", "cup", "lamp"),
        mirrors=(),
    )
