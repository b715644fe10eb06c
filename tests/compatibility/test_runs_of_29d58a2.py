"""Run folders that commit 29d58a2 wrote are read, listed, scored, exported and gone on with.

runs_29d58a2.tar.xz holds three of its runs (`train --num-points 32 --k 4 --emb-dims 8 --batch-size 8 --epochs 2` on the
easy set of conftest.py, stopped by SIGTERM after the first epoch), and the logits that it gave. Weights were rounded to
multiples of 1/32 and moments set to zero, so that the file is small.
"""

import json
import tarfile
from pathlib import Path

import pytest
import torch

import dgcnn_ws
from dgcnn_ws.cli import main

NORMS = ("ws_gn", "bn", "ws_bcn")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    with tarfile.open(Path(__file__).with_name("runs_29d58a2.tar.xz")) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "runs"


@pytest.mark.parametrize("norm", NORMS)
def test_the_network_says_what_it_said(runs: Path, norm: str) -> None:
    expected = torch.tensor(json.loads((runs / "expected.json").read_text())[norm])
    i = torch.arange(2 * 3 * 32, dtype=torch.float64)  # clouds whose neighbours no rounding changes
    points = ((0.61803398875 * (i + 1) + 178.37 * 0.0137 * i.square()) % 1 * 2 - 1).reshape(2, 3, 32).float()
    model = dgcnn_ws.load(runs / norm / "best.pt")
    with torch.no_grad():
        torch.testing.assert_close(model(points), expected, rtol=1e-3, atol=1e-3)
    assert model.class_names == ["ball", "pole", "sheet"]


@pytest.mark.usefixtures("blank_pictures")
@pytest.mark.parametrize("norm", NORMS)
def test_it_is_scored_listed_and_gone_on_with(
    runs: Path, norm: str, easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = str(runs / norm / "best.pt")
    assert main.main(["evaluate", best, "--data-root", str(easy_root), "--device", "cpu"]) == 0
    assert "11 of 11 clouds" in capsys.readouterr().out
    assert main.main(["runs", str(runs)]) == 0
    assert norm in capsys.readouterr().out
    assert main.main(["export", best, str(tmp_path / "model.pt2")]) == 0
    arguments = ["train", "--resume", "--out", str(runs), "--name", norm, "--data-root", str(easy_root)]
    assert main.main(arguments) == 0, capsys.readouterr().err
    results = json.loads((runs / norm / "results.json").read_text())
    assert results["last"]["num_clouds"] == 11
    lines = (runs / norm / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
