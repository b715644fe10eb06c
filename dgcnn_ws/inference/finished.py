"""A finished network with all that is needed to use it: `dgcnn_ws.load` makes one of a checkpoint.

It is a torch module like any other, and knows besides what its answers are called, how shapes become its input (the
frame of the data that trained it), and how sure it may say it is (its temperature).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dgcnn_ws.datasets.frame import Frame, with_up
from dgcnn_ws.datasets.network_input import network_input
from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.given import Given, is_single, shapes_in
from dgcnn_ws.inference.hub import Hub
from dgcnn_ws.inference.prediction import predict

T = TypeVar("T")

MAX_POINTS = 1 << 16  # the graph of more takes hours


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of a shape.

    Args:
        name: the likeliest class.
        probability: how likely it is, from 0 to 1.
        probabilities: every class's, the likeliest first.
        file: where the shape was read from; None where it was given as numbers.
        points: (N, C) float32, the cloud that the network saw: x, y (up), z, then the frame's features.
        wins: (N,) of how many channels of the pooled maximum each of these points is the largest: those of none could
            be missing.
        features: the pooled vector that the head sees, to compare shapes by.
    """

    name: str
    probability: float
    probabilities: dict[str, float] = field(repr=False)
    file: Path | None
    points: np.ndarray = field(repr=False)
    wins: np.ndarray = field(repr=False)
    features: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class Parts:
    """What a segmenter says of a shape.

    Args:
        names: the likeliest part's name at each point.
        parts: (N,) its index into the network's `part_names`.
        probabilities: (N, parts) float32.
        points: (N, 3) float32, the points that the network saw: where the answers are.
        file: where the shape was read from; None where it was given as numbers.
    """

    names: list[str] = field(repr=False)
    parts: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)
    points: np.ndarray = field(repr=False)
    file: Path | None


class Finished(Hub, nn.Module):
    """What a classifier and a segmenter have in common. `dgcnn_ws.load` makes them.

    Args:
        network: the network itself, weights loaded.
        recipe: the settings that trained it.
        frame: how shapes became the clouds that trained it.
        about: what its checkpoint says beside the weights, JSON-ready: `class_names`, `part_names`, `temperature`,
            `results` and what else there is.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, frame: Frame, about: dict[str, Any]) -> None:
        super().__init__()
        self.network, self.recipe, self.frame, self.about = network, recipe, frame, about
        self.temperature: float = about.get("temperature", 1.0)
        self.num_points, self.k = recipe.num_points, recipe.k
        self.eval()

    @property
    def class_names(self) -> list[str]:
        """What the answers are called, in the order of the logits.

        To set them is to say that the network answers something else than it was trained for: the temperature becomes
        1, and the scores of its run are forgotten.
        """
        names: list[str] = self.about["class_names"]
        return names

    @class_names.setter
    def class_names(self, names: Sequence[str]) -> None:
        self.temperature = 1.0
        self.about = self.about | {"class_names": list(names), "temperature": 1.0, "results": None}

    def extra_repr(self) -> str:
        return f"{len(self.class_names)} classes, {self.num_points} points, {self.frame.says()}"

    def prepare(self, inputs: Any, *, up: str | None = None, num_points: int | None = None) -> list[np.ndarray]:
        """Return what the network sees of shapes: points (N, C) float32 each, as `evaluate` would read them.

        Arguments and errors as for `predict`.
        """
        return [points for _, points in self._prepared(inputs, up, num_points)]

    def _prepared(self, inputs: Any, up: str | None, num_points: int | None) -> Iterator[tuple[Given, np.ndarray]]:
        for given in shapes_in(inputs, self.frame.features):
            yield given, self.sees(given, up, num_points)

    def sees(self, given: Given, up: str | None = None, num_points: int | None = None) -> np.ndarray:
        """Return what the network sees of a shape: points (N, C) float32. Arguments and errors as for `predict`."""
        frame = self.frame if up is None else with_up(self.frame, up)
        count = self.num_points if num_points is None else num_points
        self.check_num_points(count)
        points = network_input(given.shape, frame, count, given.name)
        if len(points) < self.k:
            raise InputError(f"{given.name} has {len(points)} points, and the network's k is {self.k}.")
        return points

    def check_num_points(self, count: int) -> None:
        """Raise InputError where the network cannot see so many points, or it would take hours."""
        if not self.k <= count <= MAX_POINTS:
            raise InputError(f"num_points={count} must lie between the network's k, {self.k}, and {MAX_POINTS}.")

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(self.network.parameters()).device


class Classifier(Finished):
    """A finished classifier: (B, C, N) -> logits (B, num_classes); `predict` takes shapes as people have them.

    C is 3, and more where the network was trained on points with features (`frame.features`).

    Args: as for `Finished`.
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def predict(
        self, inputs: Any, *, up: str | None = None, num_points: int | None = None, batch_size: int = 16
    ) -> Any:
        """Return what the network says of shapes, each prepared as the training data were.

        Args:
            inputs: the path of a file or a folder, points (N, 3) or (B, N, 3) as an array or a tensor, or a list of
                any of these, of any sizes. Points are what they would be in a file; features follow x, y, z.
            up: the axis that points up in `inputs`, `z` or `y`; `stored` where they are clouds of the data set itself,
                so that nothing is turned, mirrored or normalised. None: as the training data were made.
            num_points: points that the network sees. None: as in training.
            batch_size: clouds of one size in a forward pass; does not change the answers.

        Returns:
            A `Prediction` for a file or points (N, 3), else a list of them.

        Raises InputError where something is no shape, has fewer points than k, or the network, its last layer
        replaced, has another number of logits than `class_names`.
        """
        answers: list[Prediction] = []
        was_training = self.training
        try:
            for batch in batches(self._prepared(inputs, up, num_points), batch_size):
                clouds = [points for _, points in batch]
                said = predict(self.network, clouds, self.device, self.temperature)
                self._check_names(said.probabilities.shape[1])
                rows = zip(batch, said.probabilities, said.wins, said.features, strict=True)
                answers += [self._prediction(given, points, *row) for (given, points), *row in rows]
        finally:
            self.train(was_training)
        return answers[0] if is_single(inputs) else answers

    def save_pretrained(self, save_directory: str | Path) -> None:
        self._check_names(getattr(self.network.head.layers[-1], "out_features", len(self.class_names)))  # type: ignore
        super().save_pretrained(save_directory)

    save_pretrained.__doc__ = Hub.save_pretrained.__doc__

    def _check_names(self, logits: int) -> None:
        if logits != len(self.class_names):
            raise InputError(
                f"the network has {logits} logits and {len(self.class_names)} class names. Say what it answers: "
                "model.class_names = [...]"
            )

    def _prediction(
        self, given: Given, points: np.ndarray, row: np.ndarray, wins: np.ndarray, features: np.ndarray
    ) -> Prediction:
        order = np.argsort(-row, kind="stable")
        shares = {self.class_names[i]: float(row[i]) for i in order}
        name = self.class_names[order[0]]
        return Prediction(name, shares[name], shares, given.file, points, wins, features)


class Segmenter(Finished):
    """A finished part segmentation: (B, 3, N), category (B,) -> (B, parts, N); `predict` takes shapes as files are.

    Args: as for `Finished`.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, frame: Frame, about: dict[str, Any]) -> None:
        super().__init__(network, recipe, frame, about)
        self.part_names: list[str] = about["part_names"]

    def forward(self, x: Tensor, category: Tensor | None = None) -> Tensor:
        return self.network(x, category)

    @torch.inference_mode()
    def predict(
        self, inputs: Any, category: str | Sequence[str], *, up: str | None = None, num_points: int | None = None
    ) -> Any:
        """Return which part each point of shapes is of.

        Args:
            inputs, up, num_points: as for `Classifier.predict`.
            category: the class of the shapes, one of `class_names`; or a list, one for each.

        Returns:
            `Parts` for a file or points (N, 3), else a list of them.

        Raises InputError as `Classifier.predict`, and where a category is unknown.
        """
        prepared = list(self._prepared(inputs, up, num_points))
        categories = [category] * len(prepared) if isinstance(category, str) else list(category)
        if unknown := [name for name in categories if name not in self.class_names]:
            raise InputError(f"category {unknown[0]!r} is unknown. Choose one of {', '.join(self.class_names)}.")
        if len(categories) != len(prepared):
            raise InputError(f"{len(categories)} categories were given for {len(prepared)} shapes.")
        was_training = self.training
        self.eval()
        try:
            answers = [self._parts(*shape, name) for shape, name in zip(prepared, categories, strict=True)]
        finally:
            self.train(was_training)
        return answers[0] if is_single(inputs) else answers

    def _parts(self, given: Given, points: np.ndarray, category: str) -> Parts:
        x = torch.from_numpy(points).to(next(self.network.parameters())).T[None]  # (1, 3, N)
        label = torch.tensor([self.class_names.index(category)], device=x.device)
        probabilities = (self(x, label)[0].T / self.temperature).softmax(1).float().cpu().numpy()  # (N, parts)
        if not np.isfinite(probabilities).all():
            raise InputError("the network's answer is not a number: its weights are damaged.")
        parts = probabilities.argmax(1)
        return Parts([self.part_names[i] for i in parts], parts, probabilities, points, given.file)


def batches(items: Iterator[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last one maybe shorter."""
    if size < 1:
        raise InputError(f"batch_size={size} must be at least 1.")
    while batch := list(islice(items, size)):
        yield batch
