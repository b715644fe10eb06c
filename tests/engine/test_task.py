"""Part segmentation as a run: it learns, resumes to the same bits, and is evaluated from its checkpoint."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgcnn_ws.datasets.built_in import shapes
from dgcnn_ws.engine.folder.checkpoint import restore_model
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.engine.task import TASKS
from dgcnn_ws.engine.training import Run
from dgcnn_ws.errors import InputError

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(shapes, "PER_CLASS", {"train": 6, "test": 2})
    return complete(
        Recipe(
            task="segment", data_root=tmp_path, num_points=64, k=6, emb_dims=32, batch_size=16, micro_batch=4, epochs=2
        )
    )  # fmt: skip


def test_learns_parts_and_reports_their_iou(recipe: Recipe, tmp_path: Path) -> None:
    recipe = replace(recipe, epochs=5, lr=5e-3, dropout=0.0, label_smoothing=0.0, augment="none")
    results = Run(recipe, tmp_path / "run", quiet=True).train()
    assert json.loads((tmp_path / "run/results.json").read_text()) == results
    counts = torch.tensor(results["last"]["confusion"])
    assert counts.sum() == 32 * 64 and results["last"]["num_clouds"] == 32
    assert results["last"]["overall_accuracy"] > counts.sum(1).max() / counts.sum() + 0.1  # more than one answer
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train_loss"] < 0.7 * lines[0]["train_loss"]
    assert 0 < lines[0]["train_accuracy"] < lines[-1]["train_accuracy"] <= 1
    highest, chosen = max(line["instance_miou"] for line in lines), lines[results["best_epoch"] - 1]
    error = (highest * (1 - highest) / chosen["num_clouds"]) ** 0.5
    assert chosen["instance_miou"] >= highest - error  # instance mIoU chooses the checkpoint
    assert results["last"]["instance_miou"] > 0.3 and 0 < results["last"]["class_miou"] < 1

    model, restored, class_names = restore_model(tmp_path / "run/last.pt")
    task = TASKS[restored.task]
    dataset = task.load(restored, "test", tmp_path)
    assert dataset.class_names == class_names
    scores = task.evaluate(model, dataset, 5, torch.device("cpu"))
    assert scores.metrics()["instance_miou"] == pytest.approx(results["last"]["instance_miou"])


def test_resumes_to_the_same_bits(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run(recipe, tmp_path / "whole", quiet=True).train()
    run = Run(recipe, tmp_path / "parts", quiet=True)
    step = run.optimizer_step

    def step_and_signal(points: torch.Tensor, targets: torch.Tensor) -> None:
        step(points, targets)
        if run.progress.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(run, "optimizer_step", step_and_signal)
    with pytest.raises(Interrupted):
        run.train()
    Run(recipe, tmp_path / "parts", resume=True, quiet=True).train()
    whole, parts = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("whole", "parts"))
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []


def test_refusals(recipe: Recipe, tmp_path: Path) -> None:
    for settings, message in (
        ({"task": "count"}, "--task 'count' is unknown. Choose one of classify, segment"),
        ({"preset": "paper"}, "--task segment has no preset paper"),
        ({"dataset": "modelnet40"}, "modelnet40 is none. Choose one of shapes"),
        ({"norm": "bn", "head_norm": None, "micro_batch": 1}, "BatchNorm head cannot train"),
    ):
        with pytest.raises(InputError, match=message):
            complete(replace(recipe, **settings))
    Run(recipe, tmp_path / "run", quiet=True).train()
    content = torch.load(tmp_path / "run/last.pt", weights_only=True)
    for names in (None, [], "part", ["one"]):
        torch.save(content | {"part_names": names}, tmp_path / "damaged.pt")
        with pytest.raises(InputError, match=r"damaged\.pt is"):
            restore_model(tmp_path / "damaged.pt")
