"""What a run keeps: its network, its optimizer and its place, which a checkpoint holds."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dgcnn_ws.engine.average import Average
from dgcnn_ws.engine.folder.checkpoint import check_weights, load_checkpoint, load_weights
from dgcnn_ws.engine.folder.metrics import read_metrics
from dgcnn_ws.engine.machine.arithmetic import Arithmetic
from dgcnn_ws.engine.recipe import Recipe, from_config, other_setting
from dgcnn_ws.errors import InputError

FEW_CLOUDS = 100  # of validation: a standard error of 4 points and more


@dataclass
class Progress:
    """A run's place."""

    step: int = 0  # optimizer steps taken
    seconds: float = 0.0  # spent in training steps
    peak_memory_bytes: int = 0  # in training steps
    memory_bytes: int = 0  # of that, above what the process holds between steps
    best_accuracy: float = -1.0  # the highest so far, of whatever score chooses the checkpoint
    best_epoch: int = 0
    loss_sum: float = 0.0  # over the answers of the epoch so far: one a cloud, or one a point
    num_correct: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)  # the lines of metrics.jsonl

    @property
    def scored(self) -> int:
        """The last epoch that has been scored, from 1; 0 for none."""
        return self.history[-1]["epoch"] if self.history else 0

    def end_epoch(self, line: dict[str, Any], score: float) -> bool:
        """Note an epoch's line and the score that chooses the checkpoint; return whether it is the best so far.

        Of equal scores the lower loss on the same clouds is better: small splits have few different scores. Where fewer
        than `FEW_CLOUDS` choose, the highest score is mostly luck: then the last epoch within a standard error of it is
        taken (Breiman et al. 1984), since the learning rate falls towards the end.
        """
        best_loss = next((past["loss"] for past in self.history if past["epoch"] == self.best_epoch), math.inf)
        self.history.append(line)
        self.loss_sum, self.num_correct = 0.0, 0
        count, highest = line.get("num_clouds", FEW_CLOUDS), max(score, self.best_accuracy)
        if count < FEW_CLOUDS:
            better = score >= highest - math.sqrt(highest * (1 - highest) / count)
        else:
            better = (score, -line["loss"]) > (self.best_accuracy, -best_loss)
        if better:
            self.best_accuracy, self.best_epoch = highest, line["epoch"]
        return better

    def put_right(self) -> None:
        """Forget what runs once noted of an epoch without steps, when they were stopped between two."""
        lines = {line["epoch"]: line for line in reversed(self.history) if line["epoch"] > 0}  # the first of each
        self.history = [lines[epoch] for epoch in sorted(lines)]
        if self.best_epoch == 0:
            self.best_accuracy = -1.0


@dataclass
class State:
    """A run's state.

    Args:
        about: what a checkpoint says beside its weights: settings and names.
        steps_per_epoch: optimizer steps.
        average: of the weights, where it is what is scored and saved as the network.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    arithmetic: Arithmetic
    about: dict[str, Any]
    steps_per_epoch: int
    average: Average | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def result(self) -> nn.Module:
        """The network that is scored and saved: the trained one, or its average."""
        return self.model if self.average is None else self.average.model

    @property
    def epoch(self) -> int:
        """Whole epochs trained."""
        return self.progress.step // self.steps_per_epoch

    @property
    def steps_into_epoch(self) -> int:
        """Steps trained of the epoch after those."""
        return self.progress.step % self.steps_per_epoch

    def network(self) -> dict[str, Any]:
        """Return what best.pt holds: the network, and what is needed to use it."""
        lines = self.progress.history
        fitted = {"temperature": lines[-1]["temperature"]} if lines and "temperature" in lines[-1] else {}
        return self.about | fitted | {"epoch": self.epoch, "model": self.result.state_dict()}

    def whole(self) -> dict[str, Any]:
        """Return what last.pt holds: all that a run needs to go on."""
        trained = {} if self.average is None else {"trained": self.model.state_dict()}
        return (
            self.network()
            | trained
            | {
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.arithmetic.state_dict(),
                "progress": asdict(self.progress),
            }
        )

    def restore(self, path: Path, recipe: Recipe) -> None:
        """Go where `path`, a last.pt, was saved.

        Raises InputError where it is damaged, or is not this run's.
        """
        content = load_checkpoint(path)
        if other := other_setting(from_config(content["config"], path), recipe):
            raise InputError(f"{path} was trained with {other} as config.json says: put its own config.json back.")
        check_weights(path, self.model.state_dict(), content["model"])
        load_weights(path, self.result, content["model"])
        if self.average is not None:
            trained = content.get("trained", {})
            check_weights(path, self.model.state_dict(), trained)
            load_weights(path, self.model, trained)
        try:
            self.optimizer.load_state_dict(content["optimizer"])
            self.arithmetic.load_state_dict(content["scaler"])
            progress = Progress(**content["progress"])
            lines = path.with_name("metrics.jsonl")
            if not progress.history and lines.exists():  # from when only metrics.jsonl had it
                progress.history = read_metrics(lines)[: content["epoch"]]
            progress.put_right()
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} cannot be resumed: its optimizer or place is missing or damaged.") from error
        self.progress = progress
