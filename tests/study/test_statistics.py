"""Intervals hold the truth as often as they say, and are those of the textbook."""

import numpy as np
import pytest
from scipy import stats

from dgcnn_ws.study.statistics import paired_difference


def test_several_seeds_give_students_paired_interval() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = ([rng.random(400) < share for _ in range(4)] for share in (0.9, 0.85))
    found = paired_difference(ours, theirs)
    expected = stats.ttest_rel([a.mean() for a in ours], [b.mean() for b in theirs]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.over == "seeds" and found.mean == pytest.approx(np.mean(ours) - np.mean(theirs))


def test_a_bootstrap_over_clouds_covers_the_truth() -> None:
    """200 test sets of 500 clouds on which the networks differ by 2 points in truth: 95 % would be 190 of them."""
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        easy = rng.random(500)  # what both find easy: pairs agree more often than chance has it
        ours, theirs = (easy + 0.1 * rng.random(500) > 1.05 - share for share in (0.92, 0.90))
        found = paired_difference([ours], [theirs])
        held += found.low <= 0.02 <= found.high
        assert found.over == "clouds"
    assert 180 <= held <= 199


def test_equal_answers_differ_by_nothing() -> None:
    same = np.arange(10) > 3
    found = paired_difference([same], [same])
    assert (found.mean, found.low, found.high) == (0, 0, 0)
