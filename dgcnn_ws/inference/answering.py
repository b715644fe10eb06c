"""A finished network's answers to files of shapes, each prepared as the training data were."""

import warnings
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from dgcnn_ws.datasets.shape_file import ShapeWarning, load_shape, read_bytes
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import replacing
from dgcnn_ws.inference.finished import Classifier
from dgcnn_ws.inference.given import Given
from dgcnn_ws.inference.prediction import predict
from dgcnn_ws.inference.tables import write_predicted
from dgcnn_ws.pictures.page import Shown

OTHER_SIZE = 2  # times the training clouds' largest size, or that part of their smallest: another unit than theirs


@dataclass
class Answered:
    """What was said of files, in their order."""

    class_names: list[str]
    files: list[str] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)  # the class that a file's folder names
    probabilities: list[np.ndarray] = field(default_factory=list)
    features: list[np.ndarray] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)  # `file` and `reason`
    notices: list[str] = field(default_factory=list)  # what readers found odd
    few: int = 0  # clouds of fewer points than are drawn
    strange: int = 0  # clouds of another size than any training cloud
    shown: list[Shown] = field(default_factory=list)

    def as_json(self, top: int) -> list[dict[str, Any]]:
        """Return of each file the `top` likeliest classes, and its folder's where that is one."""
        answers = []
        for file, label, row in zip(self.files, self.labels, self.probabilities, strict=True):
            best = np.argsort(-row, kind="stable")[:top]
            said = {"file": file, "classes": {self.class_names[j]: round(float(row[j]), 6) for j in best}}
            answers.append(said if label is None else said | {"label": label})
        return answers

    def score(self) -> dict[str, Any] | None:
        """Return how many of the files whose folders name a class are called so; None where none does."""
        pairs = [(label, row) for label, row in zip(self.labels, self.probabilities, strict=True) if label]
        right = sum(self.class_names[row.argmax()] == label for label, row in pairs)
        return {"right": right, "of": len(pairs), "accuracy": right / len(pairs)} if pairs else None

    def notes(self, model: Classifier) -> Iterator[str]:
        """Yield a sentence on everything about the clouds that a reader of the answers should know."""
        if self.few:
            filled = model.frame.fill == "repeat"
            what = "were repeated, as `prepare` does" if filled else "are all that the network saw"
            clouds = "1 cloud has" if self.few == 1 else f"{self.few} clouds have"
            yield f"{clouds} fewer than {drawn(model)} points: they {what}"
        if self.strange and model.frame.radius:
            low, high = model.frame.radius
            yield (
                f"{self.strange} shapes are far smaller or larger than the training clouds, whose farthest points lie "
                f"{low:.3g} to {high:.3g} from the origin: the network has not seen the like. Is it another unit?"
            )

    def write_csv(self, path: Path) -> None:
        """Write a line a file, the probability of every class."""
        write_predicted(path, self.files, self.labels, np.stack(self.probabilities), self.class_names)

    def write_features(self, path: Path) -> None:
        """Write `features` (files, channels) and `files` as .npz."""
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, features=np.stack(self.features), files=np.array(self.files))


def ask(model: Classifier, files: list[Path], views: Tensor, batch_size: int, show: int) -> Answered:
    """Return what a network says of the shapes in files; those that cannot be read are named in it.

    Args:
        views: rotations (V, 3, 3) that are averaged over, the first of them none.
        batch_size: shapes at a time; does not change the result.
        show: shapes to keep with their points, evenly spaced over the files.
    """
    answered, wanted = Answered(model.class_names), spread(len(files), show)
    with tqdm(total=len(files), unit=" shapes", disable=None, dynamic_ncols=True, leave=False) as bar:
        for start in range(0, len(files), batch_size):
            clouds: dict[int, np.ndarray] = {}
            for i in range(start, min(start + batch_size, len(files))):
                try:
                    clouds[i] = load(files[i], model, answered)
                except InputError as error:
                    answered.skipped.append({"file": str(files[i]), "reason": str(error)})
                bar.update()
            if not clouds:
                continue
            normals = "normals" in model.frame.features
            said = predict(model.network, list(clouds.values()), model.device, model.temperature, views, normals)
            for i, row, features, wins in zip(clouds, said.probabilities, said.features, said.wins, strict=True):
                answered.files.append(str(files[i]))
                answered.labels.append(label_of(files[i], model.class_names))
                answered.probabilities.append(row)
                answered.features.append(features)
                if bisect_right(wanted, i) > len(answered.shown):  # or the next, where one could not be read
                    best = np.argsort(-row, kind="stable")[:3]
                    classes = [(model.class_names[j], float(row[j])) for j in best]
                    answered.shown.append(Shown(files[i].name, answered.labels[-1], classes, clouds[i][:, :3], wins))
    return answered


def load(path: Path, model: Classifier, answered: Answered) -> np.ndarray:
    """Return what the network sees of a file (N, 3); InputError where it cannot be read, or has too few points."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ShapeWarning)
        shape = load_shape(read_bytes(path), path, model.frame.features)
    answered.notices += [str(each.message) for each in caught if issubclass(each.category, ShapeWarning)]
    points = model.sees(Given(shape, str(path)))
    answered.few += shape.ndim == 2 and len(shape) < drawn(model)
    if model.frame.radius:
        low, high = model.frame.radius
        radius = float(np.linalg.norm(points[:, :3].astype(np.float64), axis=1).max())
        answered.strange += not low / OTHER_SIZE <= radius <= high * OTHER_SIZE
    return points


def drawn(model: Classifier) -> int:
    """Return how many points are drawn of a shape."""
    return max(model.frame.num_points, model.num_points)


def label_of(path: Path, class_names: list[str]) -> str | None:
    """Return the class that the nearest of a file's folders is named after; None where none is."""
    return next((folder.name for folder in path.parents if folder.name in class_names), None)


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` of the numbers below `count`, evenly spaced."""
    return sorted(set(np.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()))
