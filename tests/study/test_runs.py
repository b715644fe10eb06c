"""The list of runs: every state told from its folder alone, and no folder that breaks it."""

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dgcnn_ws.engine.folder.claim import claim
from dgcnn_ws.engine.recipe import Recipe, as_config, complete
from dgcnn_ws.study.runs import RunSummary, find_runs, summarize_run

RECIPE = complete(Recipe(norm="gn", batch_size=16, micro_batch=4, epochs=3))


def make(folder: Path, recipe: Recipe = RECIPE, scores: tuple[float, ...] = ()) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(as_config(recipe)))
    lines = [json.dumps({"epoch": i, "overall_accuracy": score}) for i, score in enumerate(scores, start=1)]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def look(root: Path) -> dict[str, RunSummary]:
    return {summary.name: summary for summary in (summarize_run(folder, root) for folder in find_runs(root))}


def test_states_settings_and_scores(tmp_path: Path) -> None:
    make(tmp_path / "study/a", scores=(0.5, 0.75, 0.75))
    (tmp_path / "study/a/results.json").write_text('{"best": {"overall_accuracy": 0.625}}')
    make(tmp_path / "b", scores=(0.5,))
    make(tmp_path / "c", replace(RECIPE, select="test"))
    (tmp_path / "c/failure.json").write_text('{"error": "the loss became nan"}')
    make(tmp_path / "d")
    (tmp_path / "e").mkdir()
    (tmp_path / "f").mkdir()
    (tmp_path / "f/failure.json").write_text('{"error": "no memory"}')
    (tmp_path / ".hidden").mkdir()
    with claim(tmp_path / "d"), claim(tmp_path / "e"), claim(tmp_path / "waiting"):
        runs = look(tmp_path)
    states = {name: run.state for name, run in runs.items()}
    assert states == {
        "study/a": "finished", "b": "interrupted", "c": "failed", "d": "running", "e": "running", "f": "failed",
        "waiting": "running",
    }  # fmt: skip
    a = runs["study/a"]
    assert (a.score, a.best_epoch, a.test_accuracy, a.epochs_done, a.epochs) == (0.75, 2, 0.625, 3, 3)
    assert (a.dataset, a.norm, a.head_norm, a.micro_batch, a.batch_size) == ("shapes", "gn", "est", 4, 16)
    assert a.unusual == {}
    assert runs["c"].note == "the loss became nan" and runs["c"].selected_on == "test" and a.selected_on == "val"
    assert set(look(tmp_path)) == {"study/a", "b", "c", "d", "f"}  # what was only claimed is no run any more


def test_settings_that_are_not_the_defaults_are_told(tmp_path: Path) -> None:
    usual = {"preset": "paper", "norm": "bn", "optimizer": "sgd", "epochs": 7}  # which bring settings of their own
    make(tmp_path / "a", complete(Recipe(**usual, lr=0.25, seed=3, stream=True, data_root=tmp_path)))
    expected = {"preset": "paper", "optimizer": "sgd", "lr": 0.25, "seed": 3, "stream": True}
    assert look(tmp_path)["a"].unusual == expected


def test_a_run_that_lost_its_settings_is_listed(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a/last.pt").touch()
    (tmp_path / "a/config.json").unlink()
    assert "config.json does not exist" in look(tmp_path)["a"].note


def test_age_is_the_time_since_the_last_change(tmp_path: Path) -> None:
    folder = make(tmp_path / "a")
    for name, hours in (("config.json", 5), ("metrics.jsonl", 2)):
        os.utime(folder / name, (0, time.time() - 3600 * hours))
    assert look(tmp_path)["a"].age_seconds == pytest.approx(7200, abs=60)
    os.utime(folder / "config.json", (0, time.time() + 1e6))  # a clock that was wrong
    assert look(tmp_path)["a"].age_seconds == 0


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "results.json", "failure.json"])
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"norm": 3}', b'{"error": "\\u001b[2J"}\n', b"NaN\n3\n"],
)
def test_damaged_folders_are_listed(tmp_path: Path, name: str, content: bytes) -> None:
    folder = make(tmp_path / "a", scores=(0.5,))
    (folder / name).write_bytes(content)
    (run,) = look(tmp_path).values()
    assert run.state == {"results.json": "finished", "failure.json": "failed"}.get(name, "interrupted")
    assert run.note.isprintable()
    if name == "config.json":
        assert "config.json" in run.note and run.norm is None and run.score == 0.5
    json.dumps(vars(run), allow_nan=False)


def test_odd_names_and_what_is_no_file(tmp_path: Path) -> None:
    make(tmp_path / "a\x1b[31m\nb", scores=(float("nan"), 0.25))
    (tmp_path / "c/config.json").mkdir(parents=True)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/config.json").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(tmp_path)
    make(tmp_path / "e")
    (tmp_path / "e/metrics.jsonl").unlink()
    os.mkfifo(tmp_path / "e/metrics.jsonl")  # which nobody writes
    runs = look(tmp_path)
    assert runs["a?[31m?b"].score == 0.25
    assert "does not exist" in runs["d"].note and "loop" not in str(runs)
