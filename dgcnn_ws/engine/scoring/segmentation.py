"""Scores of part segmentation: intersection over union of parts, as they are reported for ShapeNet-Part.

A cloud's IoU of a part is the share of points that both the network and the truth call so among those that either
does; 1 where neither does. The cloud's score is its mean over the parts of the cloud's category. Then

    instance mIoU = mean over clouds,   class mIoU = mean over categories of the mean over their clouds
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws.datasets import PartClouds
from dgcnn_ws.engine.parallel.processes import ALONE, Processes
from dgcnn_ws.engine.scoring.evaluation import Counts, Scores, predictions, scores_from_confusion


@dataclass(frozen=True, kw_only=True)
class PartScores(Scores):
    """Accuracies and `confusion` count points, their classes are parts; `per_category` is each category's mIoU."""

    instance_miou: float
    class_miou: float
    per_category: dict[str, float | None]

    @property
    def criterion(self) -> float:
        return self.instance_miou

    def metrics(self) -> dict[str, float]:
        return super().metrics() | {"instance_miou": self.instance_miou, "class_miou": self.class_miou}

    def __str__(self) -> str:
        return f"OA {self.overall_accuracy:.1%} mIoU {self.instance_miou:.1%} (of classes {self.class_miou:.1%})"


def cloud_iou(predicted: Tensor, parts: Tensor, relevant: Tensor) -> Tensor:
    """Return each cloud's mean IoU (B,), of predicted and true parts (B, N) and the category's parts (B, P) bool."""
    said, true = (F.one_hot(labels, relevant.shape[1]).bool() for labels in (predicted, parts))  # (B, N, P)
    intersection, union = (said & true).sum(1), (said | true).sum(1)
    iou = torch.where(union > 0, intersection / union.clamp_min(1), 1.0)  # (B, P)
    return (iou * relevant).sum(1) / relevant.sum(1)


@torch.inference_mode()
def evaluate_parts(
    model: nn.Module,
    dataset: PartClouds,
    batch_size: int,
    device: torch.device,
    votes: int = 1,
    seed: int = 0,
    processes: Processes = ALONE,
) -> PartScores:
    """Score `model` (B, 3, N), (B,) -> (B, parts, N) on every cloud of `dataset`. Arguments as for `evaluate`.

    The network may answer with any part, also one that the category does not have.
    """
    counts = Counts(len(dataset.part_names), device, processes)
    table = dataset.category_parts.to(device)
    ious = torch.zeros(len(dataset), dtype=torch.float64, device=device)

    def logits(points: Tensor, targets: Tensor) -> Tensor:
        return model(points, targets[:, 0])

    with processes.together():
        for clouds, log_probabilities, targets in predictions(
            logits, model, dataset, batch_size, device, votes, seed, processes
        ):
            parts = targets[:, 1:]
            rows = log_probabilities.movedim(1, -1).flatten(0, 1)  # a point each: else CUDA adds in any order
            counts.add(log_probabilities, parts, F.nll_loss(rows, parts.flatten(), reduction="sum") / parts.shape[1])
            ious[clouds] = cloud_iou(log_probabilities.argmax(1), parts, table[targets[:, 0]]).double()
    of_parts = scores_from_confusion(counts.confusion(), dataset.part_names, counts.loss() / len(dataset))
    return PartScores(
        **(of_parts.as_json() | {"num_clouds": len(dataset)}),
        **pool(processes.total(ious).cpu(), dataset.labels, dataset.class_names),
    )


def pool(ious: Tensor, labels: Tensor, class_names: list[str]) -> dict[str, Any]:
    """Return `PartScores`' fields of the clouds' IoUs (n,) and categories (n,)."""
    means = [ious[labels == label].mean().item() for label in range(len(class_names))]  # nan without clouds
    return {
        "instance_miou": ious.mean().item(),
        "class_miou": torch.tensor(means, dtype=torch.float64).nanmean().item(),
        "per_category": {n: None if m != m else m for n, m in zip(class_names, means, strict=True)},
    }
