"""What a data set of one's own is trained with where no flag says it."""

import shutil
from pathlib import Path

import pytest

from dgcnn_ws.engine.own_set import MOST, own_folder, suited
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
