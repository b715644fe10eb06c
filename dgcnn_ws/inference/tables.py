"""A network's answers as tables that spreadsheets and pandas read: one line a cloud."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dgcnn_ws.files import replacing


def write_csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    """Write a table to `path` in one step."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def write_scored(
    path: Path,
    places: list[tuple[str, int, str]],
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: list[str],
) -> None:
    """Write what was said of a data set's clouds, and what is right.

    Args:
        places: the file, the row in it and the shape's name, where known, of each cloud.
        labels: (n,), what is right.
        probabilities: (n, num_classes).
    """
    answers = probabilities.argmax(1)
    write_csv(
        path,
        ["file", "row", "name", "label", "prediction", "probability", "probability_of_label"],
        (
            [*place, class_names[label], class_names[answer], f"{said[answer]:.6f}", f"{said[label]:.6f}"]
            for place, label, answer, said in zip(places, labels, answers, probabilities, strict=True)
        ),
    )


def write_predicted(
    path: Path, files: list[str], labels: list[str | None], probabilities: np.ndarray, class_names: list[str]
) -> None:
    """Write what was said of files, the probability of every class.

    Args:
        labels: the class that each file's folder names; None where it names none.
        probabilities: (n, num_classes).
    """
    answers = probabilities.argmax(1)
    write_csv(
        path,
        ["file", "label", "prediction", "probability", *(f"p({name})" for name in class_names)],
        (
            [file, label or "", class_names[answer], f"{said[answer]:.6f}", *(f"{share:.6f}" for share in said)]
            for file, label, answer, said in zip(files, labels, answers, probabilities, strict=True)
        ),
    )
