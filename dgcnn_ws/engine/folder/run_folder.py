"""A run's folder: who may start or go on there, and what is written, in which order.

last.pt decides what has happened. best.pt and metrics.jsonl are written after it and follow from it.
"""

import math
from pathlib import Path

import torch
from torch import nn

from dgcnn_ws.engine.folder.checkpoint import (
    load_checkpoint,
    read_json,
    restore_model,
    save_checkpoint,
    write_json,
    write_lines,
)
from dgcnn_ws.engine.machine.devices import describe_environment
from dgcnn_ws.engine.parallel.processes import Processes
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, from_config, other_setting
from dgcnn_ws.engine.state import State
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import remove_leftovers


class RunFolder:
    """The folder of a run, where the first of its processes alone writes.

    Raises InputError, from the start, where the run cannot start there, or cannot go on there.
    """

    def __init__(self, path: Path, recipe: Recipe, resume: bool, processes: Processes) -> None:
        check_start(recipe, path, resume)
        self.path, self.recipe, self.processes = path, recipe, processes

    def open(self, fingerprint: str, device: torch.device, state: State) -> None:
        """Make the folder, or put right what a killed process left in it: last.pt decides what has happened."""
        if not self.processes.first:
            return
        make_folder(self.path, self.recipe, fingerprint, device)
        best = state.progress.best_epoch
        if best and epoch_of(self.path / "best.pt") != best:
            if state.epoch != best or state.steps_into_epoch:
                raise InputError(
                    f"{self.path / 'best.pt'} is missing or damaged: epoch {best} should lie there. Put a copy of it "
                    "there, or train anew under another --name; last.pt is whole."
                )
            save_checkpoint(self.path / "best.pt", state.network())  # killed between the two
        write_lines(self.path / "metrics.jsonl", state.progress.history)

    def save(self, state: State) -> None:
        """Write last.pt, and what follows from it where an epoch has just been scored."""
        if not self.processes.first:
            return
        total = float(sum(parameter.detach().sum() for parameter in state.model.parameters()))
        self.require_finite("sum of the weights", total, state)
        save_checkpoint(self.path / "last.pt", state.whole())
        if state.progress.scored == state.epoch and not state.steps_into_epoch:
            if state.progress.best_epoch == state.epoch:
                save_checkpoint(self.path / "best.pt", state.network())
            write_lines(self.path / "metrics.jsonl", state.progress.history)

    def read(self, name: str, num_classes: int, num_parts: int, device: torch.device) -> nn.Module:
        """Return the network of best.pt or last.pt, read by the first process alone: others may see an older file.

        Raises InputError in every process where it cannot be read.
        """
        model = build_model(self.recipe, num_classes, num_parts)
        with self.processes.together():
            if self.processes.first:
                model, _, _ = restore_model(self.path / name)
        model.to(device)
        self.processes.take_from_first(model)
        return model

    def require_finite(self, name: str, value: float, state: State) -> None:
        """Raise InputError where a run has left the numbers; its last good checkpoint stays."""
        if not math.isfinite(value):
            raise InputError(
                f"the {name} became {value} around step {state.progress.step} of {self.path}. "
                "Lower --lr or add --warmup-epochs, under another --name."
            )


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
