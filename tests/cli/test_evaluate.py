"""`evaluate`: statistics taken anew, whatever stood there before, and clouds as the world outside has them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dgcnn_ws.cli import main
from dgcnn_ws.engine.folder.checkpoint import load_checkpoint, save_checkpoint
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete


def write(path: Path, root: Path, norm: str, offset: float) -> Path:
    """Write a checkpoint whose running statistics are all wrong by `offset`."""
    recipe = complete(Recipe(dataset="modelnet10", data_root=root, norm=norm, k=5, emb_dims=32, num_points=24))
    torch.manual_seed(1)
    weights = build_model(recipe, 3).state_dict()
    for name, value in weights.items():
        if "running" in name:
            value += offset
    content: dict[str, Any] = {"config": as_config(recipe), "class_names": ["ball", "pole", "sheet"], "model": weights}
    save_checkpoint(path, content | {"epoch": 1, "temperature": 3.0, "optimizer": {}})
    return path


def test_what_stood_there_does_not_count_and_the_saved_checkpoint_scores_the_same(
    easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for offset in (0.0, 50.0):
        path, saved = write(tmp_path / "a.pt", easy_root, "bn", offset), tmp_path / f"saved{offset}.pt"
        command = ["evaluate", str(path), "--re-estimate", "--save", str(saved), "--json", str(tmp_path / "a.json")]
        assert main.main(command) == 0
        assert "running statistics of 7 batch norms taken anew over 37 training clouds" in capsys.readouterr().out
        assert main.main(["evaluate", str(saved), "--json", str(tmp_path / "b.json")]) == 0
        first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in "ab")
        assert first.pop("re_estimated") and not second.pop("re_estimated")
        assert first.pop("checkpoint") != second.pop("checkpoint")
        assert first == second and first["temperature"] != 3.0
        content = load_checkpoint(saved)
        assert "optimizer" not in content
        found.append(content["model"])
    before = load_checkpoint(tmp_path / "a.pt")["model"]
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name]), name
        assert torch.equal(value, before[name]) != ("running" in name or "num_batches" in name), name


def test_it_is_refused_where_there_is_nothing_to_take(
    easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path / "a.pt", easy_root, "ws_gn", 0.0))
    assert main.main(["evaluate", path, "--re-estimate"]) == 2
    assert "no batch norm with running statistics" in capsys.readouterr().err
    assert main.main(["evaluate", path, "--save", str(tmp_path / "b.pt")]) == 2
    assert "Add that." in capsys.readouterr().err
    assert not (tmp_path / "b.pt").exists()


def test_corrupted_clouds_are_scored(easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "a.pt", easy_root, "ws_gn", 0.0))
    assert main.main(["evaluate", path, "--corrupt", "all", "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert len(found["corrupted"]) == 13 and found["corrupted"]["none"] == {"1": found["overall_accuracy"]}
    assert all(list(shares) == ["1", "2"] for kind, shares in found["corrupted"].items() if kind != "none")
    assert "strength 2" in capsys.readouterr().out
    assert main.main(["evaluate", path, "--corrupt", "rain"]) == 2
    assert "'rain' is no kind of corruption" in capsys.readouterr().err
