"""`evaluate`: statistics taken anew, whatever stood there before, and clouds as the world outside has them."""

import csv
import json
import shutil
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


def test_twins_and_other_labels_are_scored_apart(
    easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(easy_root, root)
    folder = root / "modelnet10_ply_hdf5_2048"
    (folder / "ply_data_test0_names.txt").write_text("".join(f"x/shape_{i}\n" for i in range(11)))
    path, found = str(write(tmp_path / "a.pt", root, "ws_gn", 0.0)), tmp_path / "found.json"
    pairs = [{"test": f"ply_data_test0.h5[{row}]", "train": "ply_data_train0.h5[0]"} for row in (0, 0, 4)]
    found.write_text(json.dumps({"folder": "x", "near_duplicates": {"test": pairs}}))
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\nshape_0,\nx/shape_1,ball\nshape_2,ball\n")
    command = ["evaluate", path, "--csv", str(tmp_path / "a.csv"), "--json", str(tmp_path / "a.json")]
    assert main.main([*command, "--twins", str(found), "--labels", str(labels)]) == 0
    out = capsys.readouterr().out
    assert "which changes 2 labels and leaves 1 out" in out and "on these alone" in out
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    right = [row["prediction"] == row["label"] for row in rows]
    scores = json.loads((tmp_path / "a.json").read_text())
    without = [right[i] for i in range(11) if i not in (0, 4)]
    assert scores["without_twins"] == {"overall_accuracy": pytest.approx(sum(without) / 9), "num_clouds": 9}
    assert scores["twins"]["num_clouds"] == 2
    by_others = [right[i] if i > 2 else rows[i]["prediction"] == "ball" for i in range(1, 11)]
    assert scores["by_other_labels"] == {"overall_accuracy": pytest.approx(sum(by_others) / 10), "num_clouds": 10}
    for content, word in (("{}", "inspect --near-duplicates"), ("[", "damaged"), (found.read_text()[:-1] + "]", "dam")):
        found.write_text(content)
        assert main.main(["evaluate", path, "--twins", str(found)]) == 2
        assert word in capsys.readouterr().err
    for content in ("name,label\nnobody,ball\n", "name,label\nshape_1,cube\n", "a,b\n1,2\n"):
        labels.write_text(content)
        assert main.main(["evaluate", path, "--labels", str(labels)]) == 2
        assert str(labels) in capsys.readouterr().err
