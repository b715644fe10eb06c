"""What a classifier's probabilities are worth on a data set, cloud by cloud: top-k, calibration, tables, errors."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgcnn_ws.datasets import HDF5Clouds, LabelledClouds, StreamedClouds
from dgcnn_ws.datasets.hdf5 import cloud_places
from dgcnn_ws.engine.folder.checkpoint import read_json
from dgcnn_ws.engine.scoring.calibration import calibration_error, reliability, tempered
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.tables import write_scored
from dgcnn_ws.pictures import gallery, plots


@dataclass(frozen=True)
class Judgement:
    """What was said of every cloud of a data set.

    Args:
        dataset: the clouds, with what is right.
        log_probabilities: (n, num_classes), as the network has them.
        temperature: that was fitted on validation; 1 where none was.
    """

    dataset: LabelledClouds
    log_probabilities: Tensor
    temperature: float

    @property
    def labels(self) -> Tensor:
        return self.dataset.labels.cpu()

    @property
    def probabilities(self) -> Tensor:
        """(n, num_classes), at the temperature."""
        return tempered(self.log_probabilities, self.temperature)

    def as_json(self, tops: set[int]) -> dict[str, Any]:
        """Return the shares of clouds whose class is among so many likeliest, and the calibration."""
        before, after = (tempered(self.log_probabilities, t) for t in (1.0, self.temperature))
        errors = {name: calibration_error(p, self.labels) for name, p in (("before", before), ("after", after))}
        return {
            "temperature": self.temperature,
            "top_accuracy": {str(top): top_accuracy(self.log_probabilities, self.labels, top) for top in sorted(tops)},
            "calibration_error": errors,
            "reliability": reliability(after, self.labels),
        }

    def write_csv(self, path: Path) -> None:
        """Write a line a cloud."""
        places, names = places_of(self.dataset), self.dataset.class_names
        write_scored(path, places, self.labels.numpy(), self.probabilities.numpy(), names)

    def draw_reliability(self, path: Path) -> None:
        bins = {"as trained": reliability(tempered(self.log_probabilities, 1.0), self.labels)}
        if self.temperature != 1:
            bins[f"at temperature {self.temperature:.2f}"] = reliability(self.probabilities, self.labels)
        plots.draw_reliability(bins, path)

    def draw_gallery(self, path: Path) -> None:
        """Draw the clouds that are most surely taken for something else."""
        names, probabilities = self.dataset.class_names, self.probabilities
        wrong = most_surely_wrong(probabilities, self.labels, gallery.MOST)
        (points,) = self.dataset.read([wrong])
        confidence, answers = probabilities[wrong].max(1)
        titles = [
            f"{names[label]}\nas {names[answer]}, {share:.0%}"
            for label, answer, share in zip(self.labels[wrong], answers, confidence, strict=True)
        ]
        count = int((probabilities.argmax(1) != self.labels).sum())
        title = f"{len(wrong)} of {count} clouds taken for something else, the surest first"
        gallery.draw_gallery(points.cpu().numpy(), titles, title, path)

    def accuracy(self, counted: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        """Return accuracy and number of the clouds that count (n,) bool, by other labels (n,) if given."""
        right = self.log_probabilities.argmax(1) == (self.labels if labels is None else labels)
        number = int(counted.sum())
        return {"overall_accuracy": float(right[counted].double().mean()) if number else 0.0, "num_clouds": number}

    def find_twins(self, path: Path, split: str) -> Tensor:
        """Return which clouds (n,) `path` names: the JSON that `inspect --near-duplicates` wrote of this data set."""
        found = read_json(path)
        pairs = found.get("near_duplicates", {}).get(split) if isinstance(found, dict) else None
        places = {pair.get(split) for pair in pairs or () if isinstance(pair, dict)}
        if pairs is None or not isinstance(found.get("folder"), str):
            raise InputError(f"{path} does not say which shapes of {split} are twins: inspect --near-duplicates does.")
        known = [f"{file}[{row}]" for file, row, _ in places_of(self.dataset)]
        if places - set(known):
            raise InputError(f"{path} is of another data set: {sorted(map(str, places - set(known)))[0]} is not here.")
        return torch.tensor([place in places for place in known])

    def read_labels(self, path: Path) -> tuple[Tensor, Tensor]:
        """Return which clouds count (n,) bool and their labels (n,) int64 by a CSV of `name` and `label`.

        Names are the shapes', with their folder or without; those that the file does not name keep their labels.
        """
        names = [name for _, _, name in places_of(self.dataset)]
        rows = {name: row for row, name in enumerate(names)} | {Path(name).name: row for row, name in enumerate(names)}
        counted, labels = torch.ones(len(names), dtype=torch.bool), self.labels.clone()
        try:
            with open(path, newline="") as file:
                for line in csv.DictReader(file, strict=True):
                    row, label = rows[line["name"]], line["label"]
                    counted[row] = label != ""
                    labels[row] = self.dataset.class_names.index(label) if label else labels[row]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path} cannot be read as CSV: {error}.") from error
        except KeyError as error:
            raise InputError(f"{path} names {error}, which is no shape here or no column: name and label.") from error
        except ValueError as error:
            raise InputError(f"{path}: {error}; the classes are those of the data set.") from error
        return counted, labels


def top_accuracy(log_probabilities: Tensor, labels: Tensor, top: int) -> float:
    """Return the share of clouds whose label is among the `top` likeliest classes."""
    likeliest = log_probabilities.topk(min(top, log_probabilities.shape[1]), dim=1).indices
    return (likeliest == labels[:, None]).any(1).double().mean().item()


def most_surely_wrong(probabilities: Tensor, labels: Tensor, most: int) -> Tensor:
    """Return the indices of up to `most` clouds with a wrong answer, the surest first."""
    confidence, answers = probabilities.max(1)
    order = torch.where(answers != labels, confidence, -1.0).argsort(descending=True, stable=True)
    return order[: min(most, int((answers != labels).sum()))]


def places_of(dataset: LabelledClouds) -> list[tuple[str, int, str]]:
    """Return file, row and name of each cloud."""
    if isinstance(dataset, HDF5Clouds | StreamedClouds):
        return cloud_places(dataset.files, np.asarray(dataset.rows))
    return [("", row, "") for row in range(len(dataset))]
