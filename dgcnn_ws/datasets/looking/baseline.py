"""What a classical method makes of a data set in seconds: the score that a trained network has to beat.

A cloud is described by how its points are spread, after the shape distributions of Osada et al. (ACM Transactions on
Graphics 21(4), 2002): the distances between random pairs of points (D2), whole, along the ground and upwards; its
extents along its own axes, the heights of its points and their distances from the axis and the centre, and its moments.
All of it is the same whichever way the cloud faces. Of these numbers kernel ridge regression makes a classifier.
"""

import numpy as np
import torch

from dgcnn_ws.datasets.modelnet import LabelledClouds

PAIRS = 2048  # of points, in each cloud
CHUNK = 64  # clouds described at once
MOST = 2048  # training clouds: beyond that, and as many asked, a random choice
WIDTH, RIDGE = 0.3, 0.01  # of the kernel exp(−WIDTH · mean squared difference), and of the regression


def describe(points: np.ndarray) -> np.ndarray:
    """Return descriptions (n, features) float64 of clouds (n, num_points, 3), y up."""
    first, second = np.random.default_rng(0).integers(points.shape[1], size=(2, PAIRS))
    parts = [points[start : start + CHUNK] for start in range(0, len(points), CHUNK)]
    return np.concatenate([_describe(part.astype(np.float64), first, second) for part in parts])


def _describe(points: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    between = points[:, first] - points[:, second]
    ground, height = points[..., [0, 2]], points[..., 1]
    centred = points - points.mean(1, keepdims=True)
    moments = np.einsum("bni,bnj->bij", centred, centred) / points.shape[1]
    on_ground, axes = np.linalg.eigh(moments[:, ::2, ::2])
    return np.concatenate(
        [
            quantiles(np.linalg.norm(between, axis=2), 33),
            quantiles(np.linalg.norm(between[..., ::2], axis=2), 17),
            quantiles(np.abs(between[..., 1]), 17),
            quantiles(height, 17),
            quantiles(np.linalg.norm(ground, axis=2), 17),
            quantiles(np.linalg.norm(points, axis=2), 17),
            np.ptp(ground @ axes, axis=1),
            np.ptp(height, axis=1)[:, None],
            *(np.sqrt(np.maximum(values, 0)) for values in (on_ground, np.linalg.eigvalsh(moments))),
        ],
        axis=1,
    )


def quantiles(values: np.ndarray, count: int) -> np.ndarray:
    """Return (n, count) of values (n, m): the smallest, the largest, and evenly many between."""
    places = np.linspace(0, values.shape[1] - 1, count).round().astype(int)
    ordered: np.ndarray = np.sort(values, axis=1)[:, places]
    return ordered


def answers(known: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return labels (m,) for descriptions (m, features), by descriptions (n, features) whose labels (n,) are known."""
    mean, spread = known.mean(0), known.std(0)
    known, asked = ((part - mean) / np.where(spread > 0, spread, 1) for part in (known, asked))
    classes = np.unique(labels)
    weights = np.linalg.solve(kernel(known, known) + RIDGE * np.eye(len(known)), labels[:, None] == classes)
    chosen: np.ndarray = classes[(kernel(asked, known) @ weights).argmax(1)]
    return chosen


def kernel(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    squared = (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T
    similar: np.ndarray = np.exp(-WIDTH / one.shape[1] * squared)
    return similar


def baseline_accuracy(train: LabelledClouds, asked: LabelledClouds) -> float:
    """Return the share of the clouds of `asked` that the classical method names rightly after those of `train`."""
    num_points = min(train.num_points, asked.num_points)
    (known, labels), (questions, right) = (some_clouds(clouds, num_points) for clouds in (train, asked))
    return float((answers(describe(known), labels, describe(questions)) == right).mean())


def baseline_words(accuracy: float, count: int, split: str) -> str:
    """Return a line that says how well the classical method did on the `count` clouds of a split."""
    place = {"val": "validation"}.get(split, split)
    return f"classical baseline (distances between points, no network): {accuracy:.1%} of the {count} {place} clouds"


def some_clouds(clouds: LabelledClouds, num_points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first points (n, num_points, 3) and labels (n,) of clouds, of more than `MOST` a random choice."""
    order = torch.randperm(len(clouds), generator=torch.Generator().manual_seed(0))[:MOST]
    points = np.concatenate([part[:, :num_points, :3].numpy() for part in clouds.read(order.split(CHUNK))])
    return points, clouds.labels[order].numpy()
