"""`python main.py export` as a user meets it, and part segmentation from the command line."""

import json
from pathlib import Path

import pytest
import torch

from dgcnn_ws.cli import main
from dgcnn_ws.datasets.built_in import shapes

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_train_evaluate_and_export_a_segmentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shapes, "PER_CLASS", {"train": 3, "test": 1})
    small = ["--num-points", 32, "--k", 5, "--emb-dims", 16, "--batch-size", 16, "--micro-batch", 4, "--epochs", 1]
    places = ["--data-root", tmp_path, "--out", tmp_path]
    code, out, err = run(capsys, "train", "--task", "segment", *small, *places)
    assert code == 0, err
    assert "instance mIoU" in out and "of 16 clouds" in out
    folder = tmp_path / "shapes-segment-ws_gn-mb4-seed0"
    results = json.loads((folder / "results.json").read_text())

    scores = tmp_path / "scores.json"
    code, out, err = run(capsys, "evaluate", folder / "best.pt", "--json", scores)
    assert code == 0, err
    assert "class mIoU" in out and "16 of 16 clouds of the test split scored" in out
    written = json.loads(scores.read_text())
    for name in ("instance_miou", "class_miou", "per_category", "confusion"):
        assert written[name] == results["best"][name]

    target = tmp_path / "model.pt2"
    code, out, err = run(capsys, "export", folder / "best.pt", target)
    assert code == 0, err
    assert "3 clouds of 132 points: torch.export differs from torch by" in out and "at least 5 points" in out
    extra = {"metadata.json": ""}
    program = torch.export.load(target, extra_files=extra)
    metadata = json.loads(extra["metadata.json"])
    assert metadata["k"] == 5 and metadata["norm"] == "ws_gn" and metadata["class_names"] == list(shapes.CLASSES)
    logits = program.module()(torch.randn(2, 3, 40), torch.tensor([0, 5]))
    assert logits.shape == (2, len(metadata["part_names"]), 40)

    for place, message in (
        ("model.h5", "End it in .onnx or .pt2"),
        ("no/model.onnx", "is not a folder"),
    ):
        code, _, err = run(capsys, "export", folder / "best.pt", tmp_path / place)
        assert code == 2 and err.startswith("error: ") and message in err and err.count("\n") == 1
    code, _, err = run(capsys, "export", tmp_path / "nothing.pt", target)
    assert code == 2 and "nothing.pt does not exist" in err
