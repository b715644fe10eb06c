"""Whether two networks differ by more than chance: paired differences of accuracy, with an interval."""

from dataclasses import dataclass

import numpy as np
from scipy import special

CONFIDENCE = 0.95
RESAMPLES = 10_000


@dataclass(frozen=True)
class Difference:
    """How much more accurate one network is than another, as fractions, and within what bounds at 95 %.

    `over` says what would be drawn anew: `seeds` (Student's t on the differences of runs of the same seed) or, of
    single runs, `clouds` (a bootstrap over the test clouds, which says nothing of other seeds).
    """

    mean: float
    low: float
    high: float
    over: str


def paired_difference(ours: list[np.ndarray], theirs: list[np.ndarray], seed: int = 0) -> Difference:
    """Return the difference in accuracy of runs of the same seeds on the same clouds.

    Args:
        ours, theirs: for each seed, which clouds were named rightly (n,) bool.
        seed: of the bootstrap.
    """
    gains = [a.astype(int) - b.astype(int) for a, b in zip(ours, theirs, strict=True)]
    means = np.array([gain.mean() for gain in gains])
    mean = float(means.mean())
    if len(gains) > 1:
        half = float(special.stdtrit(len(gains) - 1, (1 + CONFIDENCE) / 2) * means.std(ddof=1) / len(gains) ** 0.5)
        return Difference(mean, mean - half, mean + half, "seeds")
    count = len(gains[0])
    # Drawing clouds with replacement is drawing how many of them are lost, equal and won.
    shares = [(gains[0] == value).mean() for value in (-1, 0, 1)]
    draws = np.random.default_rng(seed).multinomial(count, shares, RESAMPLES) @ np.array([-1, 0, 1]) / count
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Difference(mean, float(low), float(high), "clouds")
