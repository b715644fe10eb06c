"""Bytes against a count by hand; clouds without meaning that train; micro-batches that are the batch."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgcnn_ws.benchmark import benchmark
from dgcnn_ws.benchmark.benchmark import Setting
from dgcnn_ws.datasets import load_dataset
from dgcnn_ws.engine.recipe import Recipe, complete
from scripts.checks import throughput

TINY = Setting("train", "ws_gn", num_points=20, batch_size=2, k=4, emb_dims=16)


def test_bytes_that_pass_through_memory() -> None:
    setting = Setting("inference", "ws_gn", 1024, 32)
    # 3 -> 64 -> 64 -> 128 -> 256 and all 512 of them once more: 771 + 512 numbers a point.
    assert throughput.unavoidable_bytes(setting) == 1024 * 1283 * 4
    assert throughput.unavoidable_bytes(replace(setting, precision="bf16")) == 1024 * 1283 * 2
    assert throughput.unavoidable_bytes(replace(setting, mode="train")) == 3 * 1024 * 1283 * 4
    assert throughput.unavoidable_bytes(replace(setting, mode="layers")) == 3 * 1024 * 771 * 4


def test_a_copy_has_a_bandwidth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "SHORTEST", 0)
    assert throughput.copy_bandwidth(torch.device("cpu"), 2**16) > 1e6


def test_a_step_in_micro_batches_trains_by_every_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    forward = throughput.DGCNN.forward
    monkeypatch.setattr(throughput.DGCNN, "forward", lambda self, x: seen.append(x) or forward(self, x))
    throughput.micro_batch_step(TINY, "fused", replayed=False)(2)
    assert [len(x) for x in seen] == [1, 1] and not torch.equal(*seen)


def test_last_epoch_of_random_clouds(tmp_path: Path) -> None:
    throughput.write_random_clouds(tmp_path, 9, 4, 20)
    assert load_dataset("modelnet40", tmp_path, "trainval", 20).points.shape == (9, 20, 3)
    small = {"num_points": 20, "k": 4, "emb_dims": 16, "batch_size": 4, "epochs": 2}
    recipe = complete(Recipe(dataset="modelnet40", data_root=tmp_path, select="test", device="cpu", **small))  # type: ignore[arg-type]
    epoch = throughput.last_epoch(recipe, tmp_path / "run")
    assert epoch["clouds"] == 8 and epoch["seconds"] > 0 and epoch["train_loss"] > 0
