"""Training's door: the command and Python programs come in here."""

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dgcnn_ws.datasets import LabelledClouds
from dgcnn_ws.datasets.frame import features_in
from dgcnn_ws.datasets.given import clouds_of, hold_out, join
from dgcnn_ws.datasets.looking.baseline import baseline_accuracy, baseline_words
from dgcnn_ws.engine.fine_tuning import like_checkpoint
from dgcnn_ws.engine.folder.checkpoint import read_json
from dgcnn_ws.engine.folder.claim import record_failure, recording, sole
from dgcnn_ws.engine.parallel.launch import missing, watched
from dgcnn_ws.engine.parallel.processes import check_started, is_first, started
from dgcnn_ws.engine.recipe import GIVEN, HeadNorm, Recipe, complete, from_config, run_name
from dgcnn_ws.engine.training import Run, Splits
from dgcnn_ws.errors import InputError


def train(
    recipe: Recipe | None = None,
    folder: str | Path | None = None,
    *,
    train: Any = None,
    val: Any = None,
    test: Any = None,
    class_names: Sequence[str] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train a network as `dgcnn-ws train` does, and return what the run's results.json holds.

    Clouds come from the recipe's data set, or from any map-style data sets of (points, label), points (N, 3) of any N
    and label a number from 0; columns of `recipe.features` stand behind x, y, z. The network sees these as they are:
    drawn or filled up to `recipe.num_points`, neither turned nor normalised. Where test clouds are left out, nothing is
    tested.

    Works in a notebook and in any thread; Ctrl-C and SIGTERM save the place first where this is the main thread.

    Args:
        recipe: settings; those left out take the preset's values.
        folder: of the run, which holds best.pt and last.pt. Default: runs/ and a name made of the settings.
        train: clouds to learn from, instead of the recipe's data set.
        val: clouds that choose best.pt. Default: a stratified tenth of `train`.
        test: clouds that are scored once, at the end.
        class_names: one a class. Default: those that `train` has, else the labels' numbers.
        on_epoch: called after each epoch with its line of metrics.jsonl, by the run's first process; the place is
            saved before, so whatever it raises ends the run, and `resume` goes on.
        resume: go on with what lies in `folder`.
        quiet: neither progress bar nor lines.

    Raises:
        InputError: settings, clouds or the folder cannot be used.
        Interrupted: the run was asked to stop; its place is saved.
    """
    recipe = recipe or Recipe()
    if train is not None:
        if recipe.stream:
            raise InputError("stream reads clouds from files, and these are given. Leave it out.")
        if recipe.redraw:
            raise InputError("redraw draws from the points that files hold, and these clouds are given. Leave it out.")
        recipe = replace(recipe, dataset=GIVEN)
    elif val is not None or test is not None or class_names is not None:
        raise InputError("val, test and class_names go with train: give it too, or take the recipe's data set.")
    folder = Path("runs", run_name(recipe)) if folder is None else Path(folder)
    if recipe.head_norm is None:
        recipe = replace(recipe, head_norm=head_that_is_there(recipe, folder, resume))
    recipe = complete(recipe)
    splits = None if train is None else given_splits(recipe, train, val, test, class_names)
    assert recipe.devices and recipe.nodes
    check_started(recipe.devices, recipe.nodes)
    if recipe.processes > 1 and started() is None and "ipykernel" in sys.modules:
        raise InputError("a notebook trains in one process. Use torchrun or the command for several devices.")
    first = is_first(recipe.nodes)  # it holds the folder for all
    with sole(folder) if first else nullcontext():
        with missing():
            run = Run(recipe, folder, resume, quiet, splits=splits)
            if recipe.task == "classify" and not run.quiet:
                run.baseline = baseline_accuracy(run.train_set, run.select_set)
                print(baseline_words(run.baseline, len(run.select_set), recipe.select))
        record = partial(record_failure, folder)
        with recording(folder) if first else nullcontext(), missing(), watched(record):
            return run.train(on_epoch)


def head_that_is_there(recipe: Recipe, folder: Path, resume: bool) -> HeadNorm | None:
    """Return the head of the run or checkpoint that the recipe goes on with, whose default may have been another."""
    config = folder / "config.json"
    if resume and config.exists():
        return from_config(read_json(config), config).head_norm
    return like_checkpoint(recipe, Path(recipe.start)).head_norm if recipe.start else None


def given_splits(recipe: Recipe, train: Any, val: Any, test: Any, class_names: Sequence[str] | None) -> Splits:
    """Return the recipe's splits of clouds that are given. Raises InputError where they do not go together."""
    features = features_in(recipe.features)
    found: dict[str, LabelledClouds] = {"train": clouds_of(train, recipe.num_points, "train", class_names, features)}
    names = found["train"].class_names
    for split, given in (("val", val), ("test", test)):
        if given is not None:
            found[split] = clouds_of(given, recipe.num_points, split, names, features)
    if recipe.select == "test":
        if "test" not in found:
            raise InputError("select='test' chooses on the test clouds: give test, or select on val.")
        trained = join(found["train"], found["val"], "trainval") if "val" in found else found["train"]
        return Splits(trained, found["test"], found["test"])
    if "val" not in found:
        found["train"], found["val"] = hold_out(found["train"])
    return Splits(found["train"], found["val"], found.get("test"))
