"""What a network learns: its data, its outputs, what they should be, and its scores."""

from pathlib import Path

import torch
from torch import Tensor, nn

from dgcnn_ws.datasets import PartClouds, PointClouds, load_dataset, load_parts
from dgcnn_ws.engine.evaluation import Scores, evaluate
from dgcnn_ws.engine.processes import ALONE, Processes
from dgcnn_ws.engine.segmentation import evaluate_parts


class Classification:
    """Say which class a cloud is of: (B, 3, N) -> (B, num_classes)."""

    unit = "clouds"  # what is counted

    def load(self, name: str, root: str | Path, split: str, num_points: int) -> PointClouds:
        return load_dataset(name, root, split, num_points)

    def answer_names(self, dataset: PointClouds) -> list[str]:
        """Return the name of each of the network's outputs."""
        return dataset.class_names

    def logits(self, model: nn.Module, points: Tensor, targets: Tensor) -> Tensor:
        """Ask the network about points (B, 3, N) with the data set's targets (B, ...): (B, answers, ...)."""
        return model(points)

    def answers(self, targets: Tensor) -> Tensor:
        """Return what the logits should say: (B,), or (B, N) where each point has an answer."""
        return targets

    def evaluate(
        self,
        model: nn.Module,
        dataset: PointClouds,
        batch_size: int,
        device: torch.device,
        votes: int = 1,
        processes: Processes = ALONE,
    ) -> Scores:
        return evaluate(model, dataset, batch_size, device, votes, processes=processes)


class Segmentation(Classification):
    """Say which part each point is of, given the cloud's category: (B, 3, N), (B,) -> (B, num_parts, N)."""

    unit = "points"

    def load(self, name: str, root: str | Path, split: str, num_points: int) -> PartClouds:
        return load_parts(name, root, split, num_points)

    def answer_names(self, dataset: PointClouds) -> list[str]:
        assert isinstance(dataset, PartClouds)
        return dataset.part_names

    def logits(self, model: nn.Module, points: Tensor, targets: Tensor) -> Tensor:
        return model(points, targets[:, 0])

    def answers(self, targets: Tensor) -> Tensor:
        return targets[:, 1:]

    def evaluate(
        self,
        model: nn.Module,
        dataset: PointClouds,
        batch_size: int,
        device: torch.device,
        votes: int = 1,
        processes: Processes = ALONE,
    ) -> Scores:
        assert isinstance(dataset, PartClouds)
        return evaluate_parts(model, dataset, batch_size, device, votes, processes=processes)


TASKS = {"classify": Classification(), "segment": Segmentation()}
