"""Training on points that carry more than a place, and what such a network is afterwards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import dgcnn_ws
from dgcnn_ws import DGCNN, DGCNNSeg, DGCNNTNet, Recipe
from dgcnn_ws.cli.main import main
from dgcnn_ws.datasets.geometric import GeometricClouds
from dgcnn_ws.datasets.preparing.prepare import Settings, prepare
from dgcnn_ws.engine.recipe import complete
from dgcnn_ws.errors import InputError
from dgcnn_ws.models import OnBatch

SMALL = {
    "num_points": 24,
    "k": 4,
    "emb_dims": 16,
    "batch_size": 8,
    "epochs": 4,
    "augment": "none",
    "dropout": 0.0,
    "lr": 1e-3,
    "rotate": "none",
    "precision": "32",
}


def cloud(label: int, seed: int) -> np.ndarray:
    """Points of one distribution; their normals, up and down or to both sides, are what tells the classes apart."""
    rng = np.random.default_rng(seed)
    points, normals = rng.normal(size=(30, 3)), np.zeros((30, 3))
    normals[:, (2, 0)[label]] = rng.choice([-1, 1], 30)
    return np.concatenate([points, normals], axis=1)


class Clouds(torch.utils.data.Dataset):
    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return cloud(index % 2, self.first + index), index % 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `prepare` makes of files whose normals tell classes apart."""
    root = tmp_path_factory.mktemp("normals")
    for label, class_name in enumerate(("side", "top")):
        (root / "source" / class_name).mkdir(parents=True)
        for number in range(40):
            np.save(root / "source" / class_name / f"{number}.npy", cloud(1 - label, 80 * number + label))
    prepare(root / "source", root / "out", Settings(num_points=24, features=("normals",)))
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    """A run of the command on them."""
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    where = ["--dataset", str(folder / "out"), "--out", str(folder / "runs"), "--features", "normals"]
    assert main(["train", *where, *arguments]) in (0, None)
    (made,) = (folder / "runs").iterdir()
    return made


def test_normals_are_learned_from_and_known_afterwards(folder: Path, run: Path, tmp_path: Path, capsys) -> None:
    assert json.loads((run / "results.json").read_text())["best"]["overall_accuracy"] >= 0.9
    model = dgcnn_ws.load(run / "best.pt")
    assert model.frame.channels == "xyz,normals" and "normals" in repr(model)
    asked = [cloud(i % 2, 9000 + i) for i in range(20)]
    answers = model.predict([*asked, torch.from_numpy(asked[0]), folder / "source" / "top" / "3.npy"])
    assert sum(answer.name == ("top", "side")[i % 2] for i, answer in enumerate(answers[:20])) >= 18
    # In a batch of another size products may round otherwise.
    assert answers[20].probabilities == pytest.approx(answers[0].probabilities, abs=1e-6)
    assert answers[0].points.shape == (24, 6)
    with pytest.raises(InputError, match=r"\(N, 6\)"):
        model.predict(cloud(0, 1)[:, :3])
    files = [str(folder / "source" / "top"), "--rotate", "up", "--votes", "3", "--picture", str(tmp_path / "a.png")]
    assert main(["predict", str(run / "best.pt"), *files, "--json", str(tmp_path / "said.json")]) in (0, None)
    assert main(["evaluate", str(run / "best.pt"), "--votes", "3", "--stream"]) in (0, None)
    assert "16 of 16 clouds" in capsys.readouterr().out
    assert main(["export", str(run / "best.pt"), str(tmp_path / "model.pt2")]) in (0, None)
    about: dict[str, str] = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=about)
    assert "(batch, 6, points)" in about["metadata.json"] and "unit normal" in about["metadata.json"]
    assert program.module()(torch.randn(2, 6, 30)).shape == (2, 2)


def test_streamed_and_gone_on_from(run: Path, tmp_path: Path) -> None:
    recipe = replace(dgcnn_ws.load(run).recipe, stream=True)
    dgcnn_ws.train(recipe, tmp_path / "streamed", quiet=True)
    one, other = (dgcnn_ws.load(path).state_dict() for path in (run, tmp_path / "streamed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    where = ["--from", str(run / "best.pt"), "--epochs", "1", "--batch-size", "8", "--out", str(tmp_path / "on")]
    assert main(["train", *where]) in (0, None)
    (made,) = (tmp_path / "on").iterdir()
    assert dgcnn_ws.load(made).recipe.features == "normals"


def test_given_clouds(tmp_path: Path) -> None:
    recipe = Recipe(features="normals", graph="all", **SMALL)
    results = dgcnn_ws.train(recipe, tmp_path / "run", train=Clouds(0, 80), test=Clouds(100, 20), quiet=True)
    assert results["best"]["overall_accuracy"] >= 0.9
    assert dgcnn_ws.load(tmp_path / "run").network.settings["graph"] == "all"
    with pytest.raises(InputError, match=r"train\[0\] has points of shape \(30, 6\), where a cloud is \(N, 9\)"):
        dgcnn_ws.train(Recipe(features="normals,colour", **SMALL), tmp_path / "no", train=Clouds(0, 8), quiet=True)


@pytest.mark.parametrize("kind", [DGCNN, DGCNNTNet, DGCNNSeg])
def test_the_first_graph_is_of_coordinates_or_of_all(kind: type) -> None:
    def build(graph: str, in_channels: int = 4) -> torch.nn.Module:
        torch.manual_seed(0)
        return kind(3, k=4, in_channels=in_channels, emb_dims=16, graph=graph).eval()

    x = torch.cat([torch.randn(2, 3, 20), 100 * torch.randn(2, 1, 20)], dim=1)  # the last channel decides all of them
    coordinates, everything = build("coordinates"), build("all")
    first = coordinates.edge_convs[0]
    seen: list[Tensor] = []
    first.register_forward_hook(lambda _, inputs, output: seen.append(output))
    assert not torch.equal(coordinates(x), everything(x))
    torch.testing.assert_close(seen[0], first(x, pos=x[:, :3]))
    with pytest.raises(RuntimeError, match="graph"):
        everything.load_state_dict(coordinates.state_dict())
    assert torch.equal(build("coordinates", 3)(x[:, :3]), build("all", 3)(x[:, :3]))
    with pytest.raises(InputError, match="graph 'near' is unknown"):
        build("near")


def test_torch_geometric_sees_them_as_x(folder: Path) -> None:
    from dgcnn_ws.datasets import load_dataset

    clouds = load_dataset("folder", folder / "out", "train", 24, features=("normals",))
    data = GeometricClouds(clouds)[0]
    assert data.pos.shape == data.x.shape == (24, 3)
    network = DGCNN(2, k=4, in_channels=6, emb_dims=16, graph="coordinates").eval()
    torch.testing.assert_close(OnBatch(network)(data), network(clouds.points[:1].transpose(1, 2)))


def test_what_cannot_be() -> None:
    with pytest.raises(InputError, match="--task segment has no --features"):
        complete(Recipe(task="segment", features="normals"))
    with pytest.raises(InputError, match="'normal' is unknown"):
        complete(Recipe(features="normal"))
    assert complete(Recipe(features="colour, normals")).features == "normals,colour"
