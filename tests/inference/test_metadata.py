"""An exported file's metadata, followed by somebody who has nothing else, gives what `predict` says."""

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from dgcnn_ws import __version__
from dgcnn_ws.cli import main
from dgcnn_ws.datasets.frame import Frame
from dgcnn_ws.datasets.network_input import network_input
from dgcnn_ws.engine.folder.checkpoint import save_checkpoint
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete
from dgcnn_ws.inference.metadata import describe

NAMES = ["chair", "lamp", "sofa"]
FRAMES = [
    Frame(up, 60, normalization, mirrored, draw=draw)
    for up in ("z", "y")
    for mirrored in (False, True)
    for normalization, draw in (("unit_sphere", "seed"), ("unit_sphere", "contents"), ("none", "stored"))
]


def checkpoint(path: Path, frame: Frame, num_points: int) -> Path:
    """A network with random weights, of an odd temperature."""
    recipe = complete(Recipe(dataset="modelnet10", num_points=num_points, k=5, emb_dims=32, devices=1, nodes=1))
    model = build_model(recipe, len(NAMES))
    about = {"config": as_config(recipe), "class_names": NAMES, "frame": asdict(frame), "temperature": 0.625}
    save_checkpoint(path, about | {"epoch": 1, "model": model.state_dict()})
    return path


def as_the_metadata_says(cloud: np.ndarray, said: dict[str, Any]) -> np.ndarray:
    """Follow the steps for a cloud of as many points as are drawn, with the words of the file alone."""
    frame, text = said["frame"], " / ".join(said["preparation"])
    assert f"draw {len(cloud)} points" in text and frame["num_points"] == len(cloud)
    if "divide by the largest distance" in text:
        cloud = cloud - cloud.mean(0)
        cloud = cloud / np.linalg.norm(cloud, axis=1).max()
    columns = {"x": cloud[:, 0], "y": cloud[:, 1], "z": cloud[:, 2]}
    turned = [columns[axis[-1]] * (-1 if axis.startswith("-") else 1) for axis in frame["axes"]]
    return np.stack(turned).astype(np.float32)[None]  # (1, 3, points)


def test_somebody_without_this_package_gets_what_predict_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud = np.random.default_rng(0).normal(size=(60, 3)) * (1, 0.5, 2)
    np.save(tmp_path / "a.npy", cloud)
    frame = Frame("z", 60, mirrored=True, draw="contents", fill="repeat")
    trained = checkpoint(tmp_path / "a.pt", frame, 60)
    assert main.main(["predict", str(trained), str(tmp_path / "a.npy"), "--csv", str(tmp_path / "a.csv")]) == 0
    assert main.main(["export", str(trained), str(tmp_path / "a.onnx")]) == 0, capsys.readouterr().err

    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    meta = session.get_modelmeta()
    assert meta.version == 1 and meta.producer_name == "dgcnn_ws"
    said = {name: json.loads(value) for name, value in meta.custom_metadata_map.items()}
    assert said["made_by"] == f"dgcnn_ws {__version__}"
    (logits,) = session.run(None, {"points": as_the_metadata_says(cloud, said)})
    assert "logits / temperature" in said["probabilities"] and "class_names" in said["output"]
    shares = torch.from_numpy(logits[0] / said["temperature"]).softmax(0).tolist()
    with open(tmp_path / "a.csv") as file:
        (row,) = csv.DictReader(file)
    assert [float(row[f"p({name})"]) for name in said["class_names"]] == pytest.approx(shares, abs=2e-3)
    assert row["prediction"] == said["class_names"][int(np.argmax(shares))]


@pytest.mark.parametrize("frame", FRAMES)
def test_the_steps_are_those_of_the_networks_input(frame: Frame) -> None:
    cloud = np.random.default_rng(0).normal(size=(60, 3))
    recipe = complete(Recipe(dataset="modelnet10", num_points=60, devices=1, nodes=1))
    followed = as_the_metadata_says(cloud, describe(recipe, frame, NAMES, [], 1.0))[0].T
    given = network_input(cloud, frame, 60)
    assert np.allclose(followed[np.lexsort(followed.T)], given[np.lexsort(given.T)], atol=1e-6)


def test_fewer_points_are_seen_than_are_normalised_over() -> None:
    recipe = complete(Recipe(dataset="modelnet10", num_points=256, devices=1, nodes=1))
    metadata = describe(recipe, Frame("z", 2048, draw="contents"), NAMES, [], 1.0)
    assert metadata["num_points"] == 256 and metadata["frame"]["num_points"] == 2048
    assert metadata["preparation"][0].startswith("draw 2048 points")
    assert metadata["preparation"][2:] == [
        "take (x, z, -y) of the file as (x, y, z), which is a rotation; z is up in the file, y now",
        "keep the first 256 points",
    ]
