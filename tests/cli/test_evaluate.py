"""`evaluate`: statistics taken anew, whatever stood there before, and clouds as the world outside has them."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from dgcnn_ws.cli import main
from dgcnn_ws.engine.folder.checkpoint import load_checkpoint, save_checkpoint
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete
from dgcnn_ws.engine.task import TASKS

CLASSES = ["ball", "pole", "sheet"]


def write(path: Path, root: Path, norm: str, offset: float) -> Path:
    """Write a checkpoint whose running statistics are all wrong by `offset`."""
    small: dict[str, Any] = {"k": 5, "emb_dims": 32, "num_points": 24, "head_norm": "bn" if norm == "bn" else "est"}
    recipe = complete(Recipe(dataset="modelnet10", data_root=root, norm=norm, **small))
    torch.manual_seed(1)
    weights = build_model(recipe, 3).state_dict()
    for name, value in weights.items():
        if "running" in name:
            value += offset
    content: dict[str, Any] = {"config": as_config(recipe), "class_names": CLASSES, "model": weights}
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
        assert "running statistics of 7 norms taken anew over 37 training clouds" in capsys.readouterr().out
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
    found.write_text(json.dumps({"classes": {name: {} for name in CLASSES}, "near_duplicates": {"test": pairs}}))
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


Refused = Callable[..., str]


@pytest.fixture
def refused(easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Return what calls evaluate with flags that it must refuse, before it prints or writes, and returns why."""
    path = write(tmp_path / "a.pt", easy_root, "ws_gn", 0.0)

    def ask(*flags: Any, checkpoint: Path = path) -> str:
        before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
        assert main.main(["evaluate", str(checkpoint), *map(str, flags)]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: ") and said.err.count("\n") == 1 and said.out == ""
        assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
        return said.err

    return ask


GOOD = {"classes": {name: {} for name in CLASSES}}


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("[", "damaged"),
        ("[]", "inspect --near-duplicates"),
        ("{}", "inspect --near-duplicates"),
        ('{"near_duplicates": []}', "inspect --near-duplicates"),
        ('{"near_duplicates": {"test": "all"}}', "inspect --near-duplicates"),
        ('{"near_duplicates": {"test": [1]}}', "inspect --near-duplicates"),
        ('{"near_duplicates": {"test": [{"test": ["x"]}]}}', "inspect --near-duplicates"),
        ('{"near_duplicates": {"val": []}}', "shapes of test"),
        ('{"near_duplicates": {"test": []}, "classes": {"cube": {}}}', "its list of classes"),
        (json.dumps(GOOD | {"near_duplicates": {"test": [{"test": "other.h5[0]"}]}}), "other.h5[0]"),
    ],
)
def test_files_that_name_no_twins_are_refused(refused: Refused, tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "found.json").write_text(content)
    assert word in refused("--twins", tmp_path / "found.json")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "needs the columns name and label"),
        ("a,b\n1,2\n", "needs the columns name and label"),
        ("name,label\nnobody,ball\n", "line 2: 'nobody' is no shape"),
        ("name,label\n,ball\n", "'' is no shape"),
        ("name,label\nx/shape_1,cube\n", "'cube', which is no class"),
        ("name,label\nx/shape_1\n", "None, which is no class"),
        ("name,label\nshape_0,ball\n", "several shapes: name it with its folder"),
        ("name,label\nshape_1,ball\nx/shape_1,pole\n", "line 3: 'x/shape_1' has a label already"),
        ('name,label\n"shape_1,ball\n', "cannot be read as CSV"),
        ("name,label\nsh\udcffpe,ball\n", "cannot be read as CSV"),
    ],
)
def test_labels_of_no_shape_or_of_two_are_refused(
    refused: Refused, easy_root: Path, tmp_path: Path, content: str, word: str
) -> None:
    shutil.copytree(easy_root, tmp_path / "data")
    names = tmp_path / "data/modelnet10_ply_hdf5_2048/ply_data_test0_names.txt"
    names.write_text("".join(f"{'xy'[i // 10]}/shape_{i % 10}\n" for i in range(11)))
    (tmp_path / "labels.csv").write_text(content, errors="surrogateescape")
    assert word in refused("--labels", tmp_path / "labels.csv", "--data-root", tmp_path / "data")


def test_all_shapes_may_be_twins_and_a_spreadsheets_mark_is_no_column(
    refused: Refused, easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [{"test": f"ply_data_test0.h5[{row}]"} for row in range(11)]
    (tmp_path / "found.json").write_text(json.dumps(GOOD | {"near_duplicates": {"test": pairs}}))
    (tmp_path / "labels.csv").write_text("\ufeffname,label\n")
    flags = ["--twins", str(tmp_path / "found.json"), "--labels", str(tmp_path / "labels.csv")]
    assert main.main(["evaluate", str(tmp_path / "a.pt"), *flags, "--json", str(tmp_path / "a.json")]) == 0
    assert "without training shapes - of 0 clouds" in capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["without_twins"] == {"overall_accuracy": None, "num_clouds": 0}


def test_what_is_no_file_or_would_be_lost_is_refused_first(refused: Refused, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(tmp_path / "a.pt", run / "best.pt")
    (run / "config.json").write_text("{}")
    (tmp_path / "link.pt").symlink_to(tmp_path / "a.pt")
    for flag in ("--twins", "--labels"):
        assert str(tmp_path / "none") in refused(flag, tmp_path / "none")
        assert str(tmp_path) in refused(flag, tmp_path)
    for flags in (["--re-estimate", "--save"], ["--json"], ["--csv"]):
        assert "is a folder" in refused(*flags, run)
        assert "is not a folder" in refused(*flags, tmp_path / "a.pt/b")
        for name in ("a.pt", "link.pt"):
            assert "must not be written over" in refused(*flags, tmp_path / name)
        assert "must not be written over" in refused(*flags, run / "best.pt", checkpoint=run)
    assert "goes on from" in refused("--re-estimate", "--save", run / "last.pt")
    assert "named for two things" in refused("--json", tmp_path / "b", "--csv", tmp_path / "b")
    assert "49" in refused("--num-points", 49, "--corrupt", "all")
    assert "neighbours" in refused("--num-points", 5, "--corrupt", "cutout,fewer", "--data-root", short(tmp_path))


def short(folder: Path) -> Path:
    """Write the easy set's layout with clouds of 12 points, of which a quarter is fewer than the neighbours."""
    root = folder / "short/modelnet10_ply_hdf5_2048"
    root.mkdir(parents=True)
    (root / "shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    for split in ("train", "test"):
        (root / f"{split}_files.txt").write_text(f"ply_data_{split}0.h5\n")
        with h5py.File(root / f"ply_data_{split}0.h5", "w") as file:
            file["data"] = np.random.default_rng(0).normal(size=(2 if split == "train" else 3, 12, 3)).astype("f4")
            file["label"] = np.arange(2 if split == "train" else 3, dtype="u1")[:, None]
    return folder / "short"


def test_streamed_and_built_in_clouds_are_corrupted_too(easy_root: Path, tmp_path: Path) -> None:
    path = str(write(tmp_path / "a.pt", easy_root, "bn", 0.0))
    found = []
    for flags in ([], ["--stream"]):
        command = ["evaluate", path, "--re-estimate", "--corrupt", "fewer", "--json", str(tmp_path / "a.json"), *flags]
        assert main.main(command) == 0
        found.append(json.loads((tmp_path / "a.json").read_text()))
    assert found[0] == found[1]
    recipe = complete(Recipe(dataset="shapes", norm="ws_gn", k=5, emb_dims=32, num_points=24))
    names = TASKS[recipe.task].load(recipe, "test").class_names
    content = {"class_names": names, "model": build_model(recipe, len(names)).state_dict(), "epoch": 1}
    save_checkpoint(tmp_path / "b.pt", content | {"config": as_config(recipe)})
    assert main.main(["evaluate", str(tmp_path / "b.pt"), "--corrupt", "tilt"]) == 0


def test_networks_that_answer_nan_and_statistics_of_one_cloud_are_refused(
    refused: Refused, easy_root: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "bn.pt", easy_root, "bn", 0.0)
    one = short(tmp_path) / "modelnet10_ply_hdf5_2048/ply_data_train0.h5"
    with h5py.File(one, "a") as file:
        for name in ("data", "label"):
            first = file[name][:1]
            del file[name]
            file[name] = first
    flags = ("--num-points", 12, "--data-root", tmp_path / "short", "--re-estimate", "--save", tmp_path / "b.pt")
    assert "there is one alone" in refused(*flags, checkpoint=path)
    content = load_checkpoint(path)
    for value in content["model"].values():
        if value.is_floating_point():
            value.fill_(float("nan"))
    save_checkpoint(path, content)
    assert "answers NaN" in refused("--json", tmp_path / "a.json", checkpoint=path)
    assert "not finite" in refused("--re-estimate", "--save", tmp_path / "b.pt", checkpoint=path)
