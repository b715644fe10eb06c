"""The grid of a study, its search, and the numbers of its table against sums made by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.errors import InputError
from dgcnn_ws.study.pool import Job
from dgcnn_ws.study.study import (
    Measure,
    choose,
    find_baseline,
    ignores_micro_batch,
    make_grid,
    make_kinds,
    make_trials,
    summarize,
)

SIZES = [1, 2, 32]


def test_the_grid_holds_every_combination_once_and_says_what_cannot_train() -> None:
    cells = make_grid(Recipe(), ["bn", "ws_gn"], ["default", "est", "bn"], SIZES, [0, 1, 2])
    kinds = {(cell.norm, cell.head_norm) for cell in cells}
    default = {("bn", "bn"), ("ws_gn", "bn_whole")}
    assert kinds == default | {("bn", "est"), ("ws_gn", "est"), ("ws_gn", "bn")}
    assert all(len(cell.recipes) == 3 for cell in cells if not cell.refusal)
    refused = [cell for cell in cells if cell.refusal]
    assert {(cell.norm, cell.head_norm, cell.micro_batches) for cell in refused} == {
        ("bn", "bn", (1,)),
        ("ws_gn", "bn", (1,)),
    }
    assert "cannot train" in (refused[0].refusal or "")
    folders = [job.folder for cell in cells for job in cell.jobs(Path("study"))]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("norm", ["gn", "ws_gn", "ws_bcn", "bn", "ws_bn"])
@pytest.mark.parametrize("head", ["bn", "bn_whole", "gn", "ln", "est", "none"])
def test_one_run_stands_for_all_micro_batches_where_no_layer_sees_two_clouds(norm: str, head: str) -> None:
    cells = make_grid(Recipe(), [norm], [head], SIZES, [0])
    alone = norm in ("gn", "ws_gn", "ws_bcn") and head != "bn"
    assert ignores_micro_batch(complete(Recipe(norm=norm, head_norm=head))) == alone
    assert [cell.micro_batches for cell in cells] == ([tuple(SIZES)] if alone else [(1,), (2,), (32,)])
    assert [c.micro_batches for c in make_grid(Recipe(), [norm], [head], SIZES, [0], law=False)] == [(1,), (2,), (32,)]


def test_a_true_small_batch_scales_the_learning_rate() -> None:
    cells = make_grid(Recipe(lr=0.064), ["ws_gn"], ["default"], SIZES, [0], true_small_batch=True)
    found = [(cell.recipes[0].batch_size, cell.recipes[0].micro_batch, cell.recipes[0].lr) for cell in cells]
    assert found == [(1, 1, 0.002), (2, 2, 0.004), (32, 32, 0.064)]
    assert {cell.head_norm for cell in cells} == {"est"}  # a batch norm would see the small batch, however whole


def test_a_default_head_is_one_that_every_micro_batch_can_have() -> None:
    cells = make_grid(Recipe(cuda_graph=True), ["ws_gn"], ["default"], SIZES, [0], law=False)
    assert [(cell.head_norm, cell.refusal) for cell in cells] == [("est", None)] * 3
    (cell,) = make_grid(Recipe(cuda_graph=True), ["ws_gn"], ["default"], [32], [0])
    assert (cell.head_norm, cell.refusal) == ("bn_whole", None)


@pytest.mark.parametrize("change", [{"norms": ["x"]}, {"head_norms": ["x"]}])
def test_a_word_that_is_wrong_everywhere_is_an_error(change: dict[str, list[str]]) -> None:
    grid = {"norms": ["bn"], "head_norms": ["default"]} | change
    with pytest.raises(InputError, match="'x' is unknown"):
        make_grid(Recipe(), grid["norms"], grid["head_norms"], [2], [0])


@pytest.mark.parametrize("sizes", [[1, 3, 32], [1, 64], [0]])
def test_a_micro_batch_that_does_not_divide_the_batch_is_an_error(sizes: list[int]) -> None:
    with pytest.raises(InputError, match="does not divide --batch-size 32"):
        make_grid(Recipe(), ["bn", "ws_gn"], ["default"], sizes, [0])


def test_a_grid_in_which_nothing_can_train_is_an_error() -> None:
    with pytest.raises(InputError, match="BatchNorm head cannot train"):
        make_grid(Recipe(), ["bn", "ws_bn"], ["default"], [1], [0])


# --- the search ---


def finish(job: Job, **last_epoch: Any) -> None:
    job.folder.mkdir(parents=True)
    results = {"seconds": 1.0, "memory_bytes": 1, "last_epoch": last_epoch | {"mean_class_accuracy": 0.5}}
    (job.folder / "results.json").write_text(json.dumps(results))


def test_the_search_takes_the_best_on_validation_with_as_many_trials_for_each(tmp_path: Path) -> None:
    kinds = make_kinds(Recipe(), ["bn", "ws_gn"], ["default"], [32])
    trials = make_trials(kinds, [("adam", 1e-3), ("adam", 3e-3), ("sgd", 0.1)], tmp_path)
    assert {kind: len(jobs) for kind, jobs in trials.items()} == {("bn", "bn"): 3, ("ws_gn", "bn_whole"): 3}
    jobs = trials["bn", "bn"]
    on_test = make_trials(make_kinds(Recipe(select="test"), ["bn"], ["default"], [32]), [("adam", 1e-3)], tmp_path)
    for job in (*jobs, *on_test["bn", "bn"]):  # the test set is not read
        assert job.recipe.micro_batch == 32 and job.recipe.select == "val" and not job.test
    finish(jobs[0], overall_accuracy=0.9, loss=0.5)
    finish(jobs[1], overall_accuracy=0.9, loss=0.4)  # as accurate, with a lower loss
    jobs[2].folder.mkdir(parents=True)
    (jobs[2].folder / "failure.json").write_text('{"error": "the training loss became nan"}')
    best, record = choose(("bn", "bn"), jobs)
    assert isinstance(best, Recipe) and (best.optimizer, best.lr) == ("adam", 3e-3)
    assert [entry.get("chosen", False) for entry in record] == [False, True, False]
    assert record[2]["failure"] == "the training loss became nan"
    cells = make_grid(Recipe(), ["bn"], ["default"], [2], [0], chosen={("bn", "bn"): best})
    assert cells[0].recipes[0].lr == 3e-3
    for job in trials["ws_gn", "bn_whole"]:
        job.folder.mkdir(parents=True)
        (job.folder / "failure.json").write_text('{"error": "nan"}')
    nothing, _ = choose(("ws_gn", "bn_whole"), trials["ws_gn", "bn_whole"])
    assert nothing == "every trial of the search failed, the last one so: nan"
    chosen = {("bn", "bn"): best, ("ws_gn", "bn_whole"): nothing}
    cells = make_grid(Recipe(), ["bn", "ws_gn"], ["default"], [2], [0], chosen=chosen)
    assert [cell.refusal for cell in cells] == [None, nothing]


# --- the table ---


def write_results(job: Job, accuracy: float, answers: Any = None) -> None:
    scores = {"overall_accuracy": accuracy, "mean_class_accuracy": accuracy / 2, "num_clouds": 10}
    result = {"best": scores | {"answers": answers}, "last": scores, "seconds": 250.0, "last_epoch": scores}
    job.folder.mkdir()
    memory = {"memory_bytes": 2_000_000}
    (job.folder / "results.json").write_text(json.dumps(result | memory))


def test_mean_and_standard_deviation_over_seeds(tmp_path: Path) -> None:
    (cell,) = make_grid(Recipe(), ["ws_gn"], ["default"], [2], [0, 1, 2])
    for job, accuracy in zip(cell.jobs(tmp_path), (0.8, 0.9, 1.0), strict=True):
        write_results(job, accuracy)
    summary = summarize(cell, tmp_path)
    assert summary["best_overall_accuracy"]["mean"] == pytest.approx(0.9)
    assert summary["best_overall_accuracy"]["std"] == pytest.approx(0.1)  # over n - 1
    assert summary["last_mean_class_accuracy"]["std"] == pytest.approx(0.05)
    assert summary["seconds_per_epoch"]["mean"] == 1.0  # 250 epochs
    assert summary["memory_bytes"]["mean"] == 2_000_000


def test_a_failed_run_is_reported_beside_the_others(tmp_path: Path) -> None:
    (cell,) = make_grid(Recipe(), ["ws_gn"], ["default"], [2], [0, 1])
    first, second = cell.jobs(tmp_path)
    write_results(first, 0.8)
    second.folder.mkdir()
    (second.folder / "failure.json").write_text('{"error": "out of memory"}')
    summary = summarize(cell, tmp_path)
    assert summary["failures"] == {str(second.folder): "out of memory"}
    assert summary["best_overall_accuracy"]["values"] == [0.8]


@pytest.mark.parametrize("seeds", [1, 3])
def test_differences_are_taken_seed_by_seed_on_the_same_clouds(tmp_path: Path, seeds: int) -> None:
    small, whole, ours = make_grid(Recipe(), ["bn", "ws_gn"], ["default"], [2, 32], list(range(seeds)))
    labels = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    for cell, wrong in ((small, 6), (whole, 2), (ours, 1)):
        for job in cell.jobs(tmp_path):
            count = wrong + (cell is ours and job.recipe.seed == 1)
            write_results(job, 0.5, [3] * count + labels[count:])
    assert find_baseline([small, whole, ours]) is whole
    found = [summarize(cell, tmp_path, whole, labels).get("difference") for cell in (small, whole, ours)]
    assert found[1] is None and found[0] is not None and found[2] is not None
    assert found[2]["mean"] == pytest.approx(0.1 if seeds == 1 else 0.2 / 3) and found[2]["over"] == (
        "clouds" if seeds == 1 else "seeds"
    )
    assert found[2]["low"] <= found[2]["mean"] <= found[2]["high"]
    assert "difference" not in summarize(ours, tmp_path, whole, labels[:5])  # another test set
    assert "difference" not in summarize(ours, tmp_path)


def test_answers_are_scored_by_other_measures_too(tmp_path: Path) -> None:
    (cell,) = make_grid(Recipe(), ["ws_gn"], ["default"], [2], [0, 1])
    for job, answers in zip(cell.jobs(tmp_path), ([0, 1, 2, 2], [0, 0, 0, 2]), strict=True):
        write_results(job, 0.5, answers)
    measures = [
        Measure("but", "but the last", np.array([True, True, True, False]), [0, 1, 2, 0]),
        Measure("others", "by others", np.array([True] * 4), [2, 0, 0, 2]),
        Measure("another", "of another test set", np.array([True]), [0]),
    ]
    found = summarize(cell, tmp_path, labels=[0, 1, 2, 0], measures=measures)["measures"]
    assert found["but"]["accuracy"]["values"] == [1, pytest.approx(1 / 3)]
    assert found["others"]["accuracy"]["values"] == [0.25, 0.75] and found["others"]["accuracy"]["mean"] == 0.5
    assert found["another"]["accuracy"] is None
    assert summarize(cell, tmp_path)["measures"] == {}


WORDS = {"overall_accuracy": "0.9", "mean_class_accuracy": 1}


@pytest.mark.parametrize("answers", [None, [], 7, "0120120120", {"0": 1}, [[0], 1, None, "x", 2, 0, 1, 2, 0, 1]])
def test_runs_whose_answers_are_missing_or_damaged_do_not_stop_a_study(tmp_path: Path, answers: Any) -> None:
    whole, ours = make_grid(Recipe(), ["bn", "ws_gn"], ["default"], [32], [0])
    labels = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    write_results(whole.jobs(tmp_path)[0], 0.5, answers)
    write_results(ours.jobs(tmp_path)[0], 0.5, labels)
    summary = summarize(ours, tmp_path, whole, labels)
    assert summary["best_overall_accuracy"]["mean"] == 0.5
    assert ("difference" in summary) == (isinstance(answers, list) and len(answers) == 10)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"seconds": 1}',
        '{"best": {}, "last": {}, "last_epoch": {}}',
        json.dumps({"best": WORDS, "last": WORDS, "last_epoch": WORDS, "seconds": 1, "memory_bytes": 2}),
    ],
)
def test_a_corrupted_results_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    (cell,) = make_grid(Recipe(), ["ws_gn"], ["default"], [2], [0])
    (job,) = cell.jobs(tmp_path)
    job.folder.mkdir()
    (job.folder / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json is damaged"):
        summarize(cell, tmp_path)
