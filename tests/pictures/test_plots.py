"""Pictures are drawn from what a run writes, in the format that the file's ending names."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dgcnn_ws.pictures import gallery, plots

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


@pytest.mark.parametrize("count", [2, 4, 41, 69])
def test_long_names_leave_the_matrix_its_room(count: int) -> None:
    names = [f"o_ring_gasket_nbr_70_shore_of_the_metric_series_{i}" for i in range(count)]
    figure = plots.confusion_figure(np.eye(count, dtype=int).tolist(), names, numbers=False)
    FigureCanvasAgg(figure).draw()
    matrix, whole = figure.axes[0].get_window_extent(), figure.bbox
    assert matrix.width / figure.dpi > max(2.5, 0.25 * count)
    for label in (*figure.axes[0].get_yticklabels(), *figure.axes[0].get_xticklabels(), figure.axes[0].title):
        box = label.get_window_extent()
        assert box.x0 >= whole.x0 and box.y0 >= whole.y0 and box.x1 <= whole.x1 and box.y1 <= whole.y1


def test_shortened_names_keep_both_ends() -> None:
    assert plots.shortened("washer", 6) == "washer"
    assert plots.shortened("bolt_hexagon_head_12", 9) == "bolt…d_12"


def test_reliability_with_empty_bins(tmp_path: Path) -> None:
    bins = {"count": [0.0, 3.0, 2.0], "confidence": [0.0, 0.5, 0.9], "accuracy": [0.0, 1 / 3, 1.0]}
    plots.draw_reliability({"as trained": bins, "at temperature 0.50": bins}, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(MAGIC["png"])


@pytest.mark.parametrize("count", [0, 1, 13])
def test_galleries_of_any_size(tmp_path: Path, count: int) -> None:
    points = np.random.default_rng(0).normal(size=(count, 40, 3))
    gallery.draw_gallery(points, ["a $very$ long name of a class\nas another"] * count, "errors", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes().startswith(MAGIC["svg"])
