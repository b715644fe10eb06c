"""What a network learns: its data, its outputs, what they should be, and its scores."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dgcnn_ws.datasets import LabelledClouds, PartClouds, find_dataset, load_dataset, load_parts, stream_dataset
from dgcnn_ws.datasets.frame import features_in
from dgcnn_ws.datasets.hdf5 import fewest_points, list_files
from dgcnn_ws.engine.parallel.processes import ALONE, Processes
from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.engine.scoring.evaluation import Scores, evaluate
from dgcnn_ws.engine.scoring.segmentation import evaluate_parts


class Classification:
    """Say which class a cloud is of: (B, 3, N) -> (B, num_classes)."""

    unit = "clouds"  # what is counted

    def load(self, recipe: Recipe, split: str, root: Path | None = None) -> LabelledClouds:
        """Return a split of the recipe's data, which `root` holds where it has been moved."""
        place = (recipe.dataset, root or recipe.data_root, split, recipe.num_points)
        features = features_in(recipe.features)
        if recipe.stream:
            return stream_dataset(*place, recipe.stream_buffer * 10**6, features=features)
        return load_dataset(*place, features=features)

    def load_to_train(self, recipe: Recipe, split: str) -> LabelledClouds:
        """Return a split to train on: with every point that all of its clouds have, where these are drawn anew."""
        if not recipe.redraw:
            return self.load(recipe, split)
        files = list_files(find_dataset(recipe.dataset).locate(recipe.data_root), "train")
        return self.load(replace(recipe, num_points=fewest_points(files)), split)

    def answer_names(self, dataset: LabelledClouds) -> list[str]:
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
        dataset: LabelledClouds,
        batch_size: int,
        device: torch.device,
        votes: int = 1,
        processes: Processes = ALONE,
        calibrate: bool = False,
        keep_answers: bool = False,
    ) -> Scores:
        """Return the scores of every cloud of the data set, with a temperature fitted to them and answers if asked."""
        return evaluate(
            model,
            dataset,
            batch_size,
            device,
            votes,
            processes=processes,
            calibrate=calibrate,
            keep_answers=keep_answers,
        )


class Segmentation(Classification):
    """Say which part each point is of, given the cloud's category: (B, 3, N), (B,) -> (B, num_parts, N)."""

    unit = "points"

    def load(self, recipe: Recipe, split: str, root: Path | None = None) -> PartClouds:
        return load_parts(recipe.dataset, root or recipe.data_root, split, recipe.num_points)

    def answer_names(self, dataset: LabelledClouds) -> list[str]:
        assert isinstance(dataset, PartClouds)
        return dataset.part_names

    def logits(self, model: nn.Module, points: Tensor, targets: Tensor) -> Tensor:
        return model(points, targets[:, 0])

    def answers(self, targets: Tensor) -> Tensor:
        return targets[:, 1:]

    def evaluate(
        self,
        model: nn.Module,
        dataset: LabelledClouds,
        batch_size: int,
        device: torch.device,
        votes: int = 1,
        processes: Processes = ALONE,
        calibrate: bool = False,
        keep_answers: bool = False,
    ) -> Scores:
        """Return the scores of every cloud; of parts no temperature is fitted, and answers are not kept."""
        assert isinstance(dataset, PartClouds)
        return evaluate_parts(model, dataset, batch_size, device, votes, processes=processes)


TASKS = {"classify": Classification(), "segment": Segmentation()}
