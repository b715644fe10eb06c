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
        gallery.draw_gallery(points[:, :, :3].cpu().numpy(), titles, title, path)

    def accuracy(self, counted: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        """Return accuracy and number of the clouds that count (n,) bool, by other labels (n,) if given."""
        right = self.log_probabilities.argmax(1) == (self.labels if labels is None else labels)
        number = int(counted.sum())
        return {"overall_accuracy": float(right[counted].double().mean()) if number else None, "num_clouds": number}


def read_twins(path: Path, dataset: LabelledClouds) -> Tensor:
    """Return which clouds (n,) bool `path` names: the JSON that `inspect --near-duplicates` wrote of this data set.

    Raises InputError where it is anything else, or of other classes or files.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file. inspect DATASET --near-duplicates --json FILE writes it.")
    found, split = read_json(path), dataset.split
    near = found.get("near_duplicates") if isinstance(found, dict) else None
    pairs = near.get(split) if isinstance(near, dict) else None
    if not isinstance(pairs, list) or not all(isinstance(p, dict) and isinstance(p.get(split), str) for p in pairs):
        raise InputError(f"{path} does not say which shapes of {split} are twins: inspect --near-duplicates does.")
    places, known = {pair[split] for pair in pairs}, [f"{file}[{row}]" for file, row, _ in places_of(dataset)]
    others = sorted(places - set(known))
    classes = found.get("classes")
    if not isinstance(classes, dict) or list(classes) != dataset.class_names:
        others = ["its list of classes"]
    if others:
        raise InputError(f"{path} is of another data set: {others[0]} is not this one's.")
    return torch.tensor([place in places for place in known])


def read_other_labels(path: Path, dataset: LabelledClouds) -> tuple[Tensor, Tensor]:
    """Return which clouds count (n,) bool and their labels (n,) int64 by a CSV of `name` and `label`.

    Names are the shapes', with their folder or without where that is enough; those that the file does not name keep
    their labels. Raises InputError where a line names no shape or class, or a shape is meant twice.
    """
    rows: dict[str, set[int]] = {}
    for row, (_, _, name) in enumerate(places_of(dataset)):
        for word in {name, Path(name).name} - {""}:
            rows.setdefault(word, set()).add(row)
    counted, labels = torch.ones(len(dataset), dtype=torch.bool), dataset.labels.cpu().clone()
    named: set[int] = set()
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"name", "label"} <= set(reader.fieldnames or ()):
                raise InputError(f"{path} needs the columns name and label in its first line.")
            for line in reader:
                name, label = line["name"], line["label"]
                where, of_name = f"{path}, line {reader.line_num}", rows.get(name, set())
                if len(of_name) != 1:
                    many = "several shapes: name it with its folder" if of_name else "no shape of this split"
                    raise InputError(f"{where}: {name!r} is {many}.")
                if label not in ("", *dataset.class_names):
                    raise InputError(f"{where}: the label of {name!r} is {label!r}, which is no class of the data set.")
                (row,) = of_name
                if row in named:
                    raise InputError(f"{where}: {name!r} has a label already. Leave one of them.")
                named.add(row)
                counted[row] = label != ""
                labels[row] = dataset.class_names.index(label) if label else labels[row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}.") from error
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
