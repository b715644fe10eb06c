"""A run's folder: who may start or go on there, and how a stopped run finds its place.

last.pt decides what has happened. best.pt and metrics.jsonl are written after it and follow from it.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from torch import nn

from dgcnn_ws.engine.checkpoint import check_weights, load_checkpoint, load_weights, read_json, write_json
from dgcnn_ws.engine.devices import describe_environment
from dgcnn_ws.engine.metrics import read_metrics
from dgcnn_ws.engine.recipe import Recipe, as_config, from_config, other_setting
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import remove_leftovers


@dataclass
class Progress:
    """A run's place, part of its checkpoint."""

    step: int = 0  # optimizer steps taken
    seconds: float = 0.0  # spent in training steps
    peak_memory_bytes: int = 0  # in training steps
    memory_bytes: int = 0  # of that, above what the process holds between steps
    best_accuracy: float = -1.0  # or whatever score chooses the checkpoint
    best_epoch: int = 0
    loss_sum: float = 0.0  # over the answers of the epoch so far: one a cloud, or one a point
    num_correct: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # the lines of metrics.jsonl

    @property
    def scored(self) -> int:
        """The last epoch that has been scored, from 1; 0 for none."""
        return self.history[-1]["epoch"] if self.history else 0

    def put_right(self) -> None:
        """Forget what runs once noted of an epoch without steps, when they were stopped between two."""
        lines = {line["epoch"]: line for line in reversed(self.history) if line["epoch"] > 0}  # the first of each
        self.history = [lines[epoch] for epoch in sorted(lines)]
        if self.best_epoch == 0:
            self.best_accuracy = -1.0


def check_start(recipe: Recipe, folder: Path, resume: bool) -> None:
    """Raise InputError where a run cannot start in `folder`, or cannot go on there."""
    if resume:
        check_settings(recipe, folder)
        if (folder / "results.json").exists():
            raise InputError(f"{folder} is finished: its results are in results.json. There is nothing to resume.")
    elif (folder / "config.json").exists():
        raise InputError(f"{folder} already holds a run. Continue it with --resume, or choose another --name.")


def check_data(folder: Path, fingerprint: str) -> None:
    """Raise InputError where the run in `folder` was started on other training clouds."""
    if read_json(folder / "config.json").get("data", fingerprint) != fingerprint:
        raise InputError(
            f"{folder} was started on other data than these. Name the data set that it was started on, or choose "
            "another --name."
        )


def check_settings(recipe: Recipe, folder: Path) -> None:
    """Raise InputError where the run in `folder` was started with other settings than `recipe`."""
    config = folder / "config.json"
    stored = from_config(read_json(config), config)
    if other := other_setting(stored, recipe):
        raise InputError(f"{folder} was started with {other}. Go on with its own settings, or choose another --name.")
    if recipe.sync_bn and stored.processes != recipe.processes:
        raise InputError(
            f"{folder} was started with --sync-bn over {stored.processes} processes, not {recipe.processes}. Go on "
            "with as many, or choose another --name."
        )


def make_folder(folder: Path, recipe: Recipe, fingerprint: str, device: torch.device) -> None:
    """Make the folder of a run on the training clouds of this fingerprint, or clear half-written files away."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        environment = describe_environment(device)
        write_json(folder / "config.json", as_config(recipe) | {"data": fingerprint, "environment": environment})
    remove_leftovers(folder)


def epoch_of(path: Path) -> int | None:
    """Return after which epoch a checkpoint was saved; None where it is missing or damaged."""
    try:
        return load_checkpoint(path).get("epoch")
    except InputError:
        return None


def restore(
    folder: Path, recipe: Recipe, model: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision
) -> Progress:
    """Put a network and its optimizer where last.pt was saved, and return that place.

    Raises InputError where last.pt is damaged, or is not this run's.
    """
    path = folder / "last.pt"
    content = load_checkpoint(path)
    if other := other_setting(from_config(content["config"], path), recipe):
        raise InputError(f"{path} was trained with {other} as config.json says: put its own config.json back.")
    check_weights(path, model.state_dict(), content["model"])
    load_weights(path, model, content["model"])
    try:
        optimizer.load_state_dict(content["optimizer"])
        precision.load_state_dict(content["scaler"])
        progress = Progress(**content["progress"])
        if not progress.history and (folder / "metrics.jsonl").exists():  # from when only metrics.jsonl had it
            progress.history = read_metrics(folder / "metrics.jsonl")[: content["epoch"]]
        progress.put_right()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be resumed: its optimizer or place is missing or damaged.") from error
    return progress
