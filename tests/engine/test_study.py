"""The grid of a study, and the numbers of its table against sums made by hand."""

import json
from pathlib import Path

import pytest

from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.engine.study import make_grid, markdown_table, summarize
from dgcnn_ws.errors import InputError


def test_the_grid_holds_every_combination_and_says_what_cannot_train() -> None:
    cells = make_grid(Recipe(), ["bn", "ws_gn"], ["default", "est"], [1, 32], [0, 1, 2])
    assert len(cells) == 8
    assert all(len(cell.recipes) == 3 for cell in cells if not cell.refusal)
    refused = [cell for cell in cells if cell.refusal]
    assert [(cell.norm, cell.head_norm, cell.micro_batch) for cell in refused] == [("bn", "default", 1)]
    assert "cannot train" in (refused[0].refusal or "")
    folders = [folder for cell in cells for folder in cell.folders(Path("study"))]
    # ws_gn's own head is est: the two cells are one, and share their runs.
    assert len(set(folders)) == len(folders) - 6


@pytest.mark.parametrize("change", [{"norms": ["x"]}, {"head_norms": ["x"]}])
def test_a_word_that_is_wrong_everywhere_is_an_error(change: dict[str, list[str]]) -> None:
    grid = {"norms": ["bn"], "head_norms": ["default"]} | change
    with pytest.raises(InputError, match="'x' is unknown"):
        make_grid(Recipe(), grid["norms"], grid["head_norms"], [2], [0])


def test_a_grid_in_which_nothing_can_train_is_an_error() -> None:
    with pytest.raises(InputError, match="BatchNorm head cannot train"):
        make_grid(Recipe(), ["bn", "ws_bn"], ["default"], [1], [0])


def test_mean_and_standard_deviation_over_seeds(tmp_path: Path) -> None:
    (cell,) = make_grid(Recipe(), ["ws_gn"], ["default"], [2], [0, 1, 2])
    for folder, accuracy in zip(cell.folders(tmp_path), (0.8, 0.9, 1.0), strict=True):
        folder.mkdir()
        scores = {"overall_accuracy": accuracy, "mean_class_accuracy": accuracy / 2, "num_clouds": 10}
        result = {"best": scores, "last": scores, "seconds": 60.0, "clouds_per_second": 5.0}
        (folder / "results.json").write_text(json.dumps(result))
    summary = summarize(cell, tmp_path)
    assert summary["best_overall_accuracy"]["mean"] == pytest.approx(0.9)
    assert summary["best_overall_accuracy"]["std"] == pytest.approx(0.1)  # over n - 1
    assert summary["last_mean_class_accuracy"]["std"] == pytest.approx(0.05)
    assert "| `ws_gn` | est | 2 | 90.0 ± 10.0 | 45.0 ± 5.0 | 90.0 ± 10.0 | 3 | 60 |" in markdown_table([summary])
    assert "chosen on validation" in markdown_table([summary])
    assert "chosen ON THE TEST SET" in markdown_table([summary | {"selected_on": "test"}])
