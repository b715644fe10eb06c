"""Probabilities that mean something: one temperature, fitted on validation clouds (Guo et al., arXiv 1706.04599).

A network that learned smoothed labels says 64 % where it is right in 84 % of the cases. Its logits divided by a
temperature T keep their order, so the answers stay; T minimises the cross entropy of clouds that it was not trained on.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

BINS = 15  # of the expected calibration error, as in the paper
COLDEST, HOTTEST = 0.05, 20.0


def fit_temperature(log_probabilities: Tensor, labels: Tensor) -> float:
    """Return the T that minimises the cross entropy of softmax(log_probabilities / T).

    The labels count as certain but for 1 / (n + 2), as in Platt's scaling (1999): n clouds that are all named rightly
    are no reason to be sure of the next.

    Args:
        log_probabilities: (n, num_classes), or logits: what is the same for all classes of a cloud does not matter.
        labels: (n,) int64.
    """
    logits = log_probabilities.double()
    count, num_classes = logits.shape
    certain = 1 - 1 / (count + 2)
    target = torch.full_like(logits, (1 - certain) / max(num_classes - 1, 1))
    target[torch.arange(count), labels] = certain
    low, high = 1 / HOTTEST, 1 / COLDEST
    # The cross entropy is convex in 1/T; its slope is the mean logit under the prediction less that under the target.
    for _ in range(60):
        middle = (low + high) / 2
        slope = (((middle * logits).softmax(1) - target) * logits).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 2 / (low + high)


def tempered(log_probabilities: Tensor, temperature: float) -> Tensor:
    """Return the probabilities (n, num_classes) float64 that a temperature makes of logarithms of probabilities."""
    return (log_probabilities.double() / temperature).softmax(1)


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error: how far confidence and accuracy are apart, on average over the clouds.

    Clouds are sorted into 15 bins of equal width by the probability of their answer; a bin counts as often as it has
    clouds.
    """
    bins = reliability(probabilities, labels)
    gaps = (n * abs(a - b) for n, a, b in zip(bins["count"], bins["accuracy"], bins["confidence"], strict=True))
    return sum(gaps) / len(labels)


def reliability(probabilities: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Return `count`, mean `confidence` and `accuracy` of each of the 15 bins; of an empty one both are 0."""
    confidence, answers = probabilities.max(1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    one_hot = F.one_hot(bins, BINS).double()
    count = one_hot.sum(0)
    sums = torch.stack([confidence.double(), (answers == labels).double()]) @ one_hot
    means = sums / count.clamp_min(1)
    return {"count": count.tolist(), "confidence": means[0].tolist(), "accuracy": means[1].tolist()}
