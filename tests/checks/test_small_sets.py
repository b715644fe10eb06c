"""Cuts of a data set: each class has its share, no shape is in both parts, and halves are of different classes."""

import numpy as np

from dgcnn_ws.datasets.looking.census import StoredSplit
from scripts.checks.small_sets import draw, only

LABELS = np.repeat(np.arange(4), 10)
STORED = StoredSplit(np.zeros((40, 2, 3), np.float32), LABELS, [str(i) for i in range(40)])


def test_each_class_has_its_share() -> None:
    chosen, others = draw(STORED, 3, 0)
    assert np.bincount(LABELS[chosen]).tolist() == [3] * 4
    assert sorted([*chosen, *others]) == list(range(40))
    assert draw(STORED, 3, 1)[0].tolist() != chosen.tolist()


def test_halves_have_different_classes() -> None:
    even, odd = (only(STORED, range(start, 4, 2)) for start in (0, 1))
    assert set(even.places).isdisjoint(odd.places) and len(even.places) + len(odd.places) == 40
    assert sorted(set(odd.labels)) == [0, 1] and LABELS[int(odd.places[0])] == 1
