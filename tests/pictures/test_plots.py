"""Pictures are drawn from what a run writes, in the format that the file's ending names."""

from pathlib import Path

import numpy as np
import pytest

from dgcnn_ws.pictures import plots

MAGIC = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}


@pytest.mark.parametrize("ending", MAGIC)
def test_confusion_in_every_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    plots.draw_confusion([[3, 1], [0, 0]], ["ball", "pole"], path)  # a class without clouds too
    assert path.read_bytes().startswith(MAGIC[ending])


def test_training_curves_of_one_epoch_and_of_many(tmp_path: Path) -> None:
    line = {"train_loss": 2.0, "loss": 1.0, "train_accuracy": 0.5, "overall_accuracy": 0.6, "selected_on": "val"}
    for count in (1, 3):
        plots.draw_training([line | {"epoch": i + 1} for i in range(count)], tmp_path / "training.png")
        assert (tmp_path / "training.png").read_bytes().startswith(MAGIC["png"])


@pytest.mark.parametrize("count", [1, 5])
def test_clouds_with_their_critical_points(tmp_path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    clouds = [(rng.normal(size=(50, 3)), np.arange(50) * (i > 0) // 10, f"shape {i}") for i in range(count)]
    plots.draw_wins(clouds, tmp_path / "wins.png")
    assert (tmp_path / "wins.png").read_bytes().startswith(MAGIC["png"])
