"""What a data set of one's own is trained with where no flag says it."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from dgcnn_ws.datasets.preparing.prepare import Settings, prepare
from dgcnn_ws.engine.own_set import MOST, own_folder, suited, unseen
from dgcnn_ws.engine.recipe import Recipe, complete


@pytest.fixture
def mine(easy_root: Path, tmp_path: Path) -> Path:
    return shutil.copytree(easy_root / "modelnet10_ply_hdf5_2048", tmp_path / "mine")


def test_published_sets_keep_their_settings(easy_root: Path, mine: Path) -> None:
    for dataset in ("shapes", "modelnet40", str(easy_root / "modelnet10_ply_hdf5_2048")):
        assert own_folder(Recipe(dataset=dataset)) is None
    recipe = complete(Recipe(dataset="modelnet10", data_root=easy_root, num_points=48))
    assert (recipe.batch_size, recipe.epochs, recipe.emb_dims, recipe.rotate) == (32, 250, 1024, "none")
    assert own_folder(Recipe(dataset=str(mine))) == mine
    assert own_folder(Recipe(dataset="folder", data_root=mine)) == mine


def test_a_small_set_is_seen_often_in_small_batches(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, words = suited(mine)  # 37 training clouds of 48 points
    assert (recipe.batch_size, recipe.num_points, recipe.epochs, recipe.k) == (8, 48, MOST, 20)
    assert words.startswith("usual for 37 training clouds") and f"--epochs {MOST}" in words
    monkeypatch.setattr("dgcnn_ws.engine.own_set.LARGE", 30)
    large, words = suited(mine)
    assert (large.batch_size, large.emb_dims, large.epochs) == (32, 1024, None) and "--epochs 250" in words


def test_what_is_stored_and_not_seen_is_named(mine: Path, tmp_path: Path) -> None:
    for class_name in "ab":
        (tmp_path / "files" / class_name).mkdir(parents=True)
        for number in range(2):
            rows = np.random.default_rng(number).uniform(size=(8, 3))
            file = tmp_path / "files" / class_name / f"{number}.npz"
            np.savez(file, pos=rows, normals=rows, intensity=rows[:, 0])
    prepare(tmp_path / "files", tmp_path / "set", Settings(8, features=("normals", "intensity")))
    assert unseen(tmp_path / "set", Recipe()) == ["stored and not seen by the network: normals, intensity (--features)"]
    assert "network: intensity (" in unseen(tmp_path / "set", Recipe(features="normals"))[0]
    assert not unseen(tmp_path / "set", Recipe(features="normals,intensity"))
    assert not unseen(mine, Recipe())  # no prepare.json says what it has
