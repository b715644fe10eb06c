"""Training from Python: clouds of any sizes, in any thread, the same run as the command's."""

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import dgcnn_ws
from dgcnn_ws.datasets.given import clouds_of
from dgcnn_ws.engine.folder.checkpoint import restore_frame, restore_model
from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.engine.training import Run
from dgcnn_ws.errors import InputError

SMALL: dict[str, Any] = {"num_points": 32, "k": 5, "emb_dims": 32, "batch_size": 8, "epochs": 2, "device": "cpu"}


class Mine(Dataset[tuple[np.ndarray, int]]):
    """Balls, poles and sheets of 20 to 59 points."""

    classes = ("ball", "pole", "sheet")

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng((self.seed, index))
        stretch = np.array([[1, 1, 1], [0.05, 1, 0.05], [1, 0.05, 1]])[index % 3]
        return rng.normal(size=(rng.integers(20, 60), 3)) * stretch, index % 3


def test_ragged_clouds_train_outside_the_main_thread(tmp_path: Path) -> None:
    recipe, lines = Recipe(**SMALL), []
    results: dict[str, Any] = {}

    def train() -> None:
        results.update(
            dgcnn_ws.train(
                recipe, tmp_path / "run", train=Mine(40, 0), test=Mine(11, 1), on_epoch=lines.append, quiet=True
            )
        )

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert results == json.loads((tmp_path / "run/results.json").read_text())
    assert results["last"]["num_clouds"] == 11 and list(results["last"]["per_class"]) == ["ball", "pole", "sheet"]
    assert lines == [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] and {line["num_clouds"] for line in lines} == {3}  # one a class
    _, trained, names = restore_model(tmp_path / "run/best.pt")
    assert names == ["ball", "pole", "sheet"] and trained.num_points == 32
    frame = restore_frame(tmp_path / "run/best.pt")
    assert (frame.up, frame.normalization, frame.num_points) == ("y", "none", 32)


def test_clouds_that_are_given_train_as_those_in_files(easy_root: Path, tmp_path: Path) -> None:
    """And an exception of `on_epoch` ends the run at a place from which it goes on to the same bits."""
    recipe = Recipe(dataset="modelnet10", data_root=easy_root, **SMALL)
    command = dgcnn_ws.train(recipe, tmp_path / "files", quiet=True)
    splits = [dgcnn_ws.datasets.load_dataset("modelnet10", easy_root, name, 32) for name in ("train", "val", "test")]
    pairs = [[(cloud.numpy(), torch.tensor(label)) for cloud, label in split] for split in splits]
    given: dict[str, Any] = dict(zip(("train", "val", "test"), pairs, strict=True))
    given |= {"class_names": splits[0].class_names, "quiet": True}

    def stop(line: dict[str, Any]) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        dgcnn_ws.train(Recipe(**SMALL), tmp_path / "given", on_epoch=stop, **given)
    results = dgcnn_ws.train(Recipe(**SMALL), tmp_path / "given", resume=True, **given)
    assert results["last"] == command["last"] and results["best"] == command["best"]
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("files", "given"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_each_cloud_is_brought_to_size_and_otherwise_left_alone() -> None:
    clouds = clouds_of(Mine(12, 0), 32)
    for index in range(12):
        given = Mine(12, 0)[index][0].astype(np.float32)
        found, counts = np.unique(clouds.points[index].numpy(), axis=0, return_counts=True)
        assert len(found) == min(32, len(given)) and counts.max() - counts.min() <= 1
        assert (np.abs(found[:, None] - given).max(2).min(1) <= 1e-6).all()
    assert torch.equal(clouds.points, clouds_of(Mine(12, 0), 32).points)
    assert clouds_of(clouds, 32) is clouds


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((np.zeros((2, 5)), 0, 1), r"train\[0\] is not a pair"),
        ((np.zeros((3,)), 0), r"points of shape \(3,\)"),
        ((np.full((9, 3), np.nan), 0), "not finite"),
        ((np.random.default_rng(0).normal(size=(9, 3)), 0.5), r"the label 0\.5"),
        ((np.random.default_rng(0).normal(size=(9, 3)), 3), "the label 3, and there are 2 class names"),
    ],
)
def test_what_is_no_labelled_cloud_is_named(item: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        clouds_of([item], 8, class_names=["a", "b"])


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="val, test and class_names go with train"):
        dgcnn_ws.train(Recipe(**SMALL), tmp_path / "run", test=Mine(3, 0))
    with pytest.raises(InputError, match="stream reads clouds from files"):
        dgcnn_ws.train(Recipe(stream=True, **SMALL), tmp_path / "run", train=Mine(30, 0))
    with pytest.raises(InputError, match="give test"):
        dgcnn_ws.train(Recipe(select="test", **SMALL), tmp_path / "run", train=Mine(30, 0))
    assert not (tmp_path / "run").exists()


def test_a_head_that_is_not_named_is_that_of_the_run_or_checkpoint_gone_on_with(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(line: dict[str, Any]) -> None:
        raise Enough

    small: dict[str, Any] = SMALL | {"batch_size": 16, "norm": "ws_gn"}
    with pytest.raises(Enough):
        started = Recipe(**small, head_norm="bn_whole")
        dgcnn_ws.train(started, tmp_path / "run", train=Mine(30, 0), on_epoch=stop, quiet=True)
    dgcnn_ws.train(Recipe(**small), tmp_path / "run", train=Mine(30, 0), resume=True, quiet=True)
    tuned = Recipe(**small, start=str(tmp_path / "run/best.pt"))
    dgcnn_ws.train(tuned, tmp_path / "tuned", train=Mine(30, 0), quiet=True)
    for name in ("run", "tuned"):
        assert json.loads((tmp_path / name / "config.json").read_text())["head_norm"] == "bn_whole"
    with pytest.raises(InputError, match="--head-norm bn_whole needs a --batch-size of 2 or more"):
        dgcnn_ws.train(replace(tuned, batch_size=1), tmp_path / "other", train=Mine(30, 0), quiet=True)
    with pytest.raises(InputError, match="a network of --head-norm bn, not est"):
        dgcnn_ws.train(replace(tuned, head_norm="est"), tmp_path / "other", train=Mine(30, 0), quiet=True)


def test_without_test_clouds_nothing_is_tested(tmp_path: Path) -> None:
    results = dgcnn_ws.train(Recipe(**SMALL | {"epochs": 1}), tmp_path / "run", train=Mine(20, 0), quiet=True)
    assert "best" not in results and results["last_epoch"]["epoch"] == 1
    with pytest.raises(InputError, match="were given by a program"):
        _, recipe, _ = restore_model(tmp_path / "run/best.pt")
        Run(recipe, tmp_path / "other")
