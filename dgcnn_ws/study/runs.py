"""The runs that lie under a folder: what each was asked to do, how far it is, and how it stands."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgcnn_ws.engine.folder.checkpoint import read_json
from dgcnn_ws.engine.folder.claim import is_claimed, read_failure
from dgcnn_ws.engine.folder.metrics import read_metrics
from dgcnn_ws.engine.recipe import Recipe, from_config, unusual_settings
from dgcnn_ws.errors import InputError

HIDDEN = ("select", "data_root", "device")  # settings that need no words: shown otherwise, or where things were
MARKS = {"config.json", "failure.json", "last.pt", "results.json"}  # any of them makes a folder a run's
STATES = ("running", "interrupted", "failed", "finished")


@dataclass(frozen=True)
class RunSummary:
    """A run's folder in one line. What is not known, or damaged, is None and said in `note`; accuracies are shares.

    `score` is what chooses the checkpoint: overall accuracy, or the instance mIoU of a segmentation, on validation
    (`selected_on` val) or on test.
    """

    name: str  # its folder, from where was looked
    state: str
    age_seconds: float  # since something in the folder changed
    task: str | None = None
    dataset: str | None = None
    norm: str | None = None
    head_norm: str | None = None
    micro_batch: int | None = None
    batch_size: int | None = None
    epochs: int | None = None
    epochs_done: int = 0
    score: float | None = None
    best_epoch: int | None = None
    selected_on: str | None = None
    test_accuracy: float | None = None  # of best.pt
    unusual: dict[str, Any] = field(default_factory=dict)  # other settings that are not the defaults
    note: str = ""


def find_runs(root: Path) -> Iterator[Path]:
    """Yield the folders of runs at and under `root`, in the order of their names; links are not followed.

    A folder that a study has only claimed for a run counts while it is held.
    """
    for place, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        folder = Path(place)
        if MARKS & set(files) or ("claim" in files and is_claimed(folder)):
            yield folder


def summarize_run(folder: Path, root: Path) -> RunSummary:
    """Return the summary of the run in `folder`; raises nothing, whatever lies there."""
    notes: list[str] = []
    recipe = _unless_damaged(lambda: _read_recipe(folder), notes)
    metrics = _unless_damaged(lambda: _read_metrics(folder), notes) or []
    results = _unless_damaged(lambda: _read_results(folder), notes)
    failure = _unless_damaged(lambda: read_failure(folder), notes)
    score = "instance_miou" if recipe and recipe.task == "segment" else "overall_accuracy"
    scored = [(value, line["epoch"]) for line in metrics if (value := _share(line.get(score))) is not None]
    best = max(scored, key=lambda pair: pair[0], default=(None, None))  # the first of the best
    if results and any(results.get("best_epoch") == epoch for _, epoch in scored):
        best = next(pair for pair in scored if pair[1] == results["best_epoch"])
    if (folder / "results.json").exists():
        state = "finished"
    elif is_claimed(folder):
        state = "running"
    elif (folder / "failure.json").exists():
        state = "failed"
        notes.insert(0, failure or "")
    else:
        state = "interrupted"
    on_test = results.get("best") if results else None
    settings: dict[str, Any] = {}
    if recipe:
        names = ("task", "norm", "head_norm", "micro_batch", "batch_size", "epochs")
        settings = {name: getattr(recipe, name) for name in names}
        settings |= {"dataset": printable(recipe.data_root.name) if recipe.dataset == "folder" else recipe.dataset}
        settings |= {"selected_on": recipe.select}
        shown = {*settings, *HIDDEN}
        settings["unusual"] = {name: value for name, value in unusual_settings(recipe).items() if name not in shown}
    return RunSummary(
        name=printable(os.path.relpath(folder, root) if folder != root else folder.resolve().name),
        state=state,
        age_seconds=max(0.0, time.time() - _last_change(folder)),
        epochs_done=len(metrics),
        score=best[0],
        best_epoch=best[1],
        test_accuracy=_share(on_test.get("overall_accuracy")) if isinstance(on_test, dict) else None,
        note=printable("; ".join(note for note in notes if note)),
        **settings,
    )


def printable(text: str) -> str:
    """Return `text` so that it cannot steer a terminal, whatever a file or its name says."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _unless_damaged(read: Callable[[], Any], notes: list[str]) -> Any:
    try:
        return read()
    except InputError as error:
        notes.append(str(error))
    except OSError as error:
        notes.append(f"{error.filename} cannot be read: {error.strerror}")
    return None


def _read_recipe(folder: Path) -> Recipe:
    return from_config(read_json(folder / "config.json"), folder / "config.json")


def _read_metrics(folder: Path) -> list[dict[str, Any]]:
    path = folder / "metrics.jsonl"
    return read_metrics(path) if path.is_file() else []


def _read_results(folder: Path) -> dict[str, Any] | None:
    path = folder / "results.json"
    if not path.exists():
        return None
    results = read_json(path)
    if not isinstance(results, dict):
        raise InputError(f"{path} is damaged: it holds no results.")
    return results


def _share(value: Any) -> float | None:
    """Return a number from a file, or None where it is none."""
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _last_change(folder: Path) -> float:
    """Return when a file of the folder was last written, in seconds since 1970."""
    times = []
    with suppress(OSError):  # a temporary file that has just taken its place, a folder that is gone
        for entry in os.scandir(folder):
            times.append(entry.stat(follow_symlinks=False).st_mtime)
    return max(times, default=time.time())
