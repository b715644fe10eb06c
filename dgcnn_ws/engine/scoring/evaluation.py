"""Scores of a network on a set of clouds, every one of them counted."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from dgcnn_ws.datasets import LabelledClouds
from dgcnn_ws.datasets.augment import rotate, rotations, stretched, uniform
from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.engine.parallel.processes import ALONE, Processes
from dgcnn_ws.engine.scoring.calibration import fit_temperature

EVAL_BATCH = 16  # clouds that a run scores at once


@dataclass(frozen=True)
class Scores:
    """Accuracies are fractions; `confusion[i][j]` counts clouds of class i that were called j.

    `per_class` is each class's recall, the share of its clouds that were called so.
    """

    overall_accuracy: float
    mean_class_accuracy: float
    loss: float
    num_clouds: int
    per_class: dict[str, float | None]
    confusion: list[list[int]]
    temperature: float | None = None  # that makes probabilities of these clouds' logits, where it was fitted
    answers: list[int] | None = None  # the class that each cloud was called, where it was asked for

    @property
    def precision(self) -> dict[str, float | None]:
        """Of each class, the share of the clouds called so that are of it; None where none was."""
        called = [sum(column) for column in zip(*self.confusion, strict=True)]
        right = (self.confusion[i][i] for i in range(len(called)))
        return {name: r / c if c else None for name, r, c in zip(self.per_class, right, called, strict=True)}

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def criterion(self) -> float:
        """The score that chooses between checkpoints."""
        return self.overall_accuracy

    def metrics(self) -> dict[str, float]:
        """Return the scores that an epoch's line records."""
        return {
            "loss": self.loss,
            "overall_accuracy": self.overall_accuracy,
            "mean_class_accuracy": self.mean_class_accuracy,
        } | ({"temperature": self.temperature} if self.temperature is not None else {})

    def __str__(self) -> str:
        return f"OA {self.overall_accuracy:.1%} mAcc {self.mean_class_accuracy:.1%}"


def scores_from_confusion(confusion: Tensor, class_names: list[str], loss: float) -> Scores:
    """Return the scores of a (classes, classes) matrix of counts; a class without clouds has none (None)."""
    correct, total = confusion.diagonal().double(), confusion.sum(1)
    recall = correct / total  # nan for a class without clouds
    return Scores(
        overall_accuracy=(correct.sum() / total.sum()).item(),
        mean_class_accuracy=recall.nanmean().item(),
        loss=loss,
        num_clouds=int(total.sum()),
        per_class={n: r if c else None for n, r, c in zip(class_names, recall.tolist(), total, strict=True)},
        confusion=confusion.tolist(),
    )


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    dataset: LabelledClouds,
    batch_size: int,
    device: torch.device,
    votes: int = 1,
    seed: int = 0,
    processes: Processes = ALONE,
    rotate: str = "none",
    hear: Callable[[slice, Tensor], None] | None = None,
    calibrate: bool = False,
    keep_answers: bool = False,
) -> Scores:
    """Score `model` on every cloud of `dataset`.

    Args:
        model: (B, 3, N) -> (B, num_classes), on `device`; it is left in evaluation mode.
        votes: predictions averaged (as probabilities): of the cloud itself and of `votes` − 1 copies.
        seed: seed of those copies, where they are drawn.
        processes: score the batches in turns; all call this, and all get the scores of the whole set.
        rotate: what the copies are: `none`, scaled at random; `up` or `any`, turned to all headings or orientations.
        hear: is told the place and the log-probabilities (B, num_classes) of each batch that this process scores.
        calibrate: fit a temperature to these clouds.
        keep_answers: put the class that each cloud was called into the scores.

    Returns:
        The scores; the loss is the plain cross entropy, without label smoothing, of the averaged prediction.
    """
    counts = Counts(dataset.num_classes, device, processes)
    said = LogProbabilities(len(dataset), dataset.num_classes, processes) if calibrate or keep_answers else None
    with processes.together():
        for clouds, log_probabilities, labels in predictions(
            lambda points, _: model(points), model, dataset, batch_size, device, votes, seed, processes, rotate
        ):
            for listener in (hear, said):
                if listener is not None:
                    listener(clouds, log_probabilities)
            counts.add(log_probabilities, labels, F.nll_loss(log_probabilities, labels, reduction="sum"))
    scores = scores_from_confusion(counts.confusion(), dataset.class_names, counts.loss() / len(dataset))
    if said is None:
        return scores
    values = said.of_all(device)
    return replace(
        scores,
        temperature=fit_temperature(values, dataset.labels.cpu()) if calibrate else None,
        answers=values.argmax(1).tolist() if keep_answers else None,
    )


class Counts:
    """Answers and losses as they come in, and their sums over all processes."""

    def __init__(self, num_classes: int, device: torch.device, processes: Processes) -> None:
        self.processes = processes
        self.matrix = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, predicted: Tensor, labels: Tensor, loss: Tensor) -> None:
        """Count answers: logits or log-probabilities (B, answers, ...), of which the largest is given, and (B, ...)."""
        one = torch.ones((), dtype=torch.int64, device=labels.device)
        self.matrix.index_put_((labels.flatten(), predicted.argmax(1).flatten()), one, accumulate=True)
        self.loss_sum += loss

    def confusion(self) -> Tensor:
        return self.processes.total(self.matrix).cpu()

    def loss(self) -> float:
        return self.processes.total(self.loss_sum).item()


def predictions(
    logits: Callable[[Tensor, Tensor], Tensor],
    model: nn.Module,
    dataset: LabelledClouds,
    batch_size: int,
    device: torch.device,
    votes: int,
    seed: int,
    processes: Processes,
    rotate: str = "none",
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield places, log-probabilities (B, answers, ...) and targets of this process's batches of the data set.

    Arguments as for `evaluate`.

    Args:
        logits: asks `model` about points (B, 3, N), given the targets.
    """
    model.eval()
    normals = "normals" in dataset.features
    copies = scaled_copies(dataset, votes, seed) if rotate == "none" else turned_copies(rotate, votes, normals)
    loader = Loader(dataset, batch_size, device)
    mine = list(processes.turns(range(len(loader))))
    for batch, (points, targets) in zip(mine, loader.batches(loader.order(0), mine), strict=True):
        clouds = slice(batch * batch_size, (batch + 1) * batch_size)
        probabilities = torch.zeros((), device=device)
        for copy in copies(points, clouds):
            probabilities = probabilities + logits(copy.transpose(1, 2), targets).float().softmax(1)
        yield clouds, (probabilities / votes).clamp_min(torch.finfo(torch.float32).tiny).log(), targets


Copies = Callable[[Tensor, slice], Iterator[Tensor]]  # of clouds (B, N, 3), which have this place in the data set


def scaled_copies(dataset: LabelledClouds, votes: int, seed: int) -> Copies:
    """Return what yields clouds as they are, then `votes` − 1 times with every axis of each scaled at random."""
    # All drawn at once, where the labels lie: the batch size does not change a cloud's copies.
    like = torch.empty(0, device=dataset.labels.device)
    generator = torch.Generator(like.device).manual_seed(seed)
    scales = uniform(like, (votes, len(dataset), 1, 3), 2 / 3, 3 / 2, generator)
    scales[0] = 1
    normals = "normals" in dataset.features
    return lambda points, clouds: (stretched(points, scale, normals) for scale in scales[:, clouds].to(points.device))


def turned_copies(kind: str, votes: int, normals: bool = False) -> Copies:
    """Return what yields clouds turned to `votes` headings (`up`) or orientations (`any`), first as they are."""
    views = rotations(kind, votes)
    return lambda points, _: (
        rotate(points, view.expand(len(points), 3, 3), normals) for view in views.to(points.device)
    )


class LogProbabilities:
    """What a network says of the clouds of a data set, as `evaluate` comes to them.

    Args:
        num_clouds, num_classes: of the data set.
    """

    def __init__(self, num_clouds: int, num_classes: int, processes: Processes = ALONE) -> None:
        self.processes = processes
        self.values = torch.zeros(num_clouds, num_classes)

    def __call__(self, clouds: slice, log_probabilities: Tensor) -> None:
        self.values[clouds] = log_probabilities.cpu()

    def of_all(self, device: torch.device) -> Tensor:
        """Return (num_clouds, num_classes) on the CPU, in every process those of all."""
        return self.processes.total(self.values.to(device)).cpu()


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether `model` has batch norms, which see the whole batch in training."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


@torch.inference_mode()
def evaluate_by_batch_statistics(
    model: nn.Module,
    dataset: LabelledClouds,
    batch_size: int,
    device: torch.device,
    seed: int = 0,
    processes: Processes = ALONE,
) -> Scores:
    """Score `model` with every batch norm using the batch it sees, as in training, and not its running statistics.

    Where this score is high and `evaluate`'s low, training went well and the running statistics do not fit.

    Args:
        batch_size: clouds in a batch, which are drawn at random: the micro-batch of the training.
        seed: of that draw.
        processes: as for `evaluate`.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.train()
            module.momentum = 0.0  # the running statistics stay
    counts = Counts(dataset.num_classes, device, processes)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    batches = list(processes.turns(order.split(batch_size)))
    # An incomplete last batch is filled up with other clouds, whose logits do not count.
    filled = [torch.cat([chosen, order])[:batch_size] for chosen in batches]
    with processes.together():
        for chosen, points in zip(batches, dataset.read(filled), strict=True):
            logits = model(points.to(device).transpose(1, 2))[: len(chosen)].float()
            labels = dataset.labels[chosen].to(device)
            counts.add(logits, labels, F.cross_entropy(logits, labels, reduction="sum"))
    return scores_from_confusion(counts.confusion(), dataset.class_names, counts.loss() / len(dataset))
