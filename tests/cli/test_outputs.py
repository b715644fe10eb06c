"""What `evaluate` and `predict` write: the same shapes get the same answers from both, in every table."""

import base64
import csv
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from dgcnn_ws.cli import main
from dgcnn_ws.datasets.frame import read_frame
from dgcnn_ws.datasets.preparing.prepare import Settings, prepare
from dgcnn_ws.engine.folder.checkpoint import save_checkpoint
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete
from dgcnn_ws.inference.answering import spread
from dgcnn_ws.inference.scoring import most_surely_wrong, top_accuracy

NAMES = ["box", "cloud_of_points"]


@dataclass(frozen=True)
class Trained:
    """A data set made of files, and a network for it whose weights nobody trained."""

    files: Path
    checkpoint: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root, rng = tmp_path_factory.mktemp("outputs"), np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 5)):
        for name in NAMES:
            (root / "files" / name / split).mkdir(parents=True)
        for i in range(count):
            trimesh.creation.box(extents=rng.uniform(1, 9, 3)).export(root / f"files/box/{split}/{i}.off")
            points = rng.normal(size=((20, 64, 100, 7, 3)[i], 3))  # fewer than are stored, as many, more
            np.save(root / f"files/cloud_of_points/{split}/{i}.npy", points)
    prepare(root / "files", root / "set", Settings(64, mirrored=True))
    recipe = complete(Recipe(dataset=str(root / "set"), num_points=48, k=5, emb_dims=32, devices=1, nodes=1))
    torch.manual_seed(3)
    model, frame = build_model(recipe, 2), read_frame(root / "set")
    assert frame is not None
    about = {"config": as_config(recipe), "class_names": NAMES, "frame": asdict(frame), "temperature": 0.25}
    save_checkpoint(root / "a.pt", about | {"epoch": 1, "model": model.state_dict()})
    return Trained(root / "files", root / "a.pt")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def command(*arguments: object, code: int = 0) -> str:
        found = main.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert found == code, captured.err
        return captured.out + captured.err

    return command


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("flags", [[], ["--num-points", 20], ["--rotate", "up", "--votes", 3], ["--rotate", "any"]])
def test_the_same_shapes_get_the_same_answers(
    flags: list[object], trained: Trained, tmp_path: Path, run: Callable[..., str]
) -> None:
    """Meshes and clouds, sparse ones and ones of fewer points than neighbours too."""
    tables = ["--csv", tmp_path / "table.csv", "--json", tmp_path / "a.json"]
    out = run("evaluate", trained.checkpoint, *tables, *flags)
    assert "precision" in out and "calibration error (ECE, 15 bins)" in out and "at temperature 0.25" in out
    scored, scores = rows_of(tmp_path / "table.csv"), json.loads((tmp_path / "a.json").read_text())
    assert list(scored[0]) == ["file", "row", "name", "label", "prediction", "probability", "probability_of_label"]
    assert [row["row"] for row in scored] == [str(i) for i in range(10)]

    tests = [trained.files / name / "test" for name in NAMES]
    out = run("predict", trained.checkpoint, *tests, *tables, *flags, "--features", tmp_path / "f.npz")
    predicted, answers = rows_of(tmp_path / "table.csv"), json.loads((tmp_path / "a.json").read_text())
    assert list(predicted[0]) == ["file", "label", "prediction", "probability", "p(box)", "p(cloud_of_points)"]
    for one, other in zip(scored, predicted, strict=True):  # in one order, as the names' is
        assert one["name"] == f"{other['label']}/{Path(other['file']).stem}"
        assert one["label"] == other["label"] and one["prediction"] == other["prediction"]
        assert float(one["probability"]) == pytest.approx(float(other["probability"]), abs=2e-5)
        assert float(one["probability_of_label"]) == pytest.approx(float(other[f"p({one['label']})"]), abs=2e-5)
    right = sum(row["label"] == row["prediction"] for row in scored)
    assert right == round(10 * scores["overall_accuracy"]) == answers["score"]["right"] and answers["score"]["of"] == 10
    assert f"{right} of 10 shapes are called as the folders that they lie in" in out
    assert "3 clouds have fewer than 64 points: they were repeated" in out and "mirrored" in out
    features = np.load(tmp_path / "f.npz")
    assert features["features"].shape == (10, 64) and features["files"].tolist() == [row["file"] for row in predicted]


def test_pictures_and_numbers_of_errors(trained: Trained, tmp_path: Path, run: Callable[..., str]) -> None:
    pictures = {flag: tmp_path / f"{flag}.png" for flag in ("plot", "reliability", "gallery")}
    flags = [word for flag, path in pictures.items() for word in (f"--{flag}", path)]
    run("evaluate", trained.checkpoint, *flags, "--json", tmp_path / "a.json", "--top", 2)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.values())
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["top_accuracy"] == {"1": found["overall_accuracy"], "2": 1.0}
    assert sum(found["reliability"]["count"]) == 10 and found["temperature"] == 0.25
    for i, name in enumerate(NAMES):
        called = sum(row[i] for row in found["confusion"])
        assert found["precision"][name] == (found["confusion"][i][i] / called if called else None)


def test_a_page_holds_the_clouds_and_asks_nobody_for_anything(
    trained: Trained, tmp_path: Path, run: Callable[..., str]
) -> None:
    odd = tmp_path / "<b>&amp;.npy"
    np.save(odd, np.random.default_rng(0).normal(size=(64, 3)))
    run("predict", trained.checkpoint, trained.files / "box/test", odd, "--html", tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text()
    assert not re.search(r"https?://|src=|@import|url\(", text), "self-contained"
    found = re.search(r"^const data = (.*);$", text, re.M)
    assert found and "<b>" not in found[1]
    data = json.loads(found[1])
    assert [shape["name"] for shape in data["shapes"]] == [f"{i}.off" for i in range(5)] + [odd.name]
    for shape in data["shapes"]:
        points = np.frombuffer(base64.b64decode(shape["points"]), "<i2").reshape(-1, 3) / 32767
        wins = np.frombuffer(base64.b64decode(shape["wins"]), "<u2")
        assert len(points) == len(wins) == 48 and wins.sum() == 32
        assert np.linalg.norm(points, axis=1).max() == pytest.approx(1, abs=1e-3)
    assert data["shapes"][0]["label"] == "box" and data["shapes"][5]["label"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--num-points", 4], "--num-points 4 is below the 5 neighbours"),
        (["evaluate", "--num-points", 65], "lower --num-points from 65"),
        (["evaluate", "--gallery", "a.txt"], "--gallery a.txt cannot be drawn"),
        (["evaluate", "--csv", "no/a.csv"], "is not a folder"),
        (["predict", "a.off", "--votes", 3], "needs --rotate"),
        (["predict", "a.off", "--features", "a.npy"], "End it in .npz"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[object], message: str, trained: Trained, run: Callable[..., str]
) -> None:
    out = run(arguments[0], trained.checkpoint, *arguments[1:], code=2)
    assert message in out and out.startswith("error: ") and out.count("\n") == 1


def test_clouds_of_another_size_than_training_saw(trained: Trained, tmp_path: Path, run: Callable[..., str]) -> None:
    content = torch.load(trained.checkpoint)
    content["frame"] |= {"normalization": "none", "radius": (900.0, 1100.0), "draw": "stored"}
    torch.save(content, tmp_path / "a.pt")
    np.save(tmp_path / "metres.npy", np.random.default_rng(0).normal(size=(64, 3)))
    out = run("predict", tmp_path / "a.pt", tmp_path / "metres.npy")
    assert "1 shapes are far smaller or larger than the training clouds" in out and "900 to 1.1e+03" in out
    np.save(tmp_path / "metres.npy", 400 * np.random.default_rng(0).normal(size=(64, 3)))
    assert "far smaller" not in run("predict", tmp_path / "a.pt", tmp_path / "metres.npy")


def test_a_temperature_that_is_none(trained: Trained, tmp_path: Path, run: Callable[..., str]) -> None:
    content = torch.load(trained.checkpoint)
    for value in (0.0, float("nan"), "hot", 1e9, torch.ones(3)):
        torch.save(content | {"temperature": value}, tmp_path / "a.pt")
        assert "its temperature is" in run("predict", tmp_path / "a.pt", trained.files, code=2)


def test_which_of_many_are_shown() -> None:
    assert spread(5, 12) == [0, 1, 2, 3, 4] and spread(1, 12) == [0] and spread(100, 1) == [0]
    chosen = spread(1000, 12)
    assert len(chosen) == 12 and chosen[0] == 0 and chosen[-1] == 999
    assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1


def test_top_accuracy_and_the_surest_errors() -> None:
    shares = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.35, 0.25], [0.9, 0.06, 0.04]])
    labels = torch.tensor([0, 0, 1, 2])
    assert [top_accuracy(shares.log(), labels, top) for top in (1, 2, 3, 9)] == [0.25, 0.5, 1, 1]
    assert most_surely_wrong(shares, labels, 2).tolist() == [3, 1]
    assert most_surely_wrong(shares, labels, 9).tolist() == [3, 1, 2]
    assert most_surely_wrong(shares, shares.argmax(1), 9).tolist() == []
