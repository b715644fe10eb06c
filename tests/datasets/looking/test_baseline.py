"""The classical baseline, and whether shapes face one way: on clouds whose answers are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dgcnn_ws.datasets import PointClouds
from dgcnn_ws.datasets.built_in.shapes import normalize
from dgcnn_ws.datasets.looking.baseline import answers, baseline_accuracy, describe
from dgcnn_ws.datasets.looking.first_look import first_look, uneven
from dgcnn_ws.datasets.looking.headings import random_turn, rotate_for
from dgcnn_ws.datasets.solids import rotation

STRETCH = np.array([[1, 0.3, 0.4], [0.3, 1, 0.4], [1, 0.3, 0.9]])  # boxes, which lie, stand, and lie flat


def boxes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Clouds (count, 128, 3) of wedges of three proportions, all heavier at one end, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    points = rng.uniform(-1, 1, (count, 128, 3))
    points[..., 2] *= 1.5 + points[..., 0]  # from in front it is no box from behind
    points *= (STRETCH[labels] * rng.uniform(0.9, 1.1, (count, 3)))[:, None]
    return np.stack([normalize(cloud) for cloud in points]).astype(np.float32), labels


def turned(points: np.ndarray, upright: bool) -> np.ndarray:
    rng = np.random.default_rng(1)
    turns = [rotation(1, rng.uniform(0, 2 * np.pi)) if upright else random_turn(rng) for _ in points]
    return np.stack([cloud @ turn.T for cloud, turn in zip(points, turns, strict=True)])


def test_baseline_knows_proportions_whichever_way_a_shape_faces() -> None:
    (points, labels), (asked, right) = boxes(60, 0), boxes(30, 2)
    known = describe(points)
    assert (answers(known, labels, describe(turned(asked, upright=True))) == right).mean() > 0.95
    np.testing.assert_allclose(describe(turned(points, upright=True)), known, atol=1e-6)
    train, val = (PointClouds(*map(torch.from_numpy, boxes(*of)), ["a", "b", "c"]) for of in ((60, 0), (30, 2)))
    assert baseline_accuracy(train, val) > 0.95


def test_baseline_of_random_labels_is_a_guess() -> None:
    points, labels = boxes(90, 0)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert (answers(describe(points[:60]), shuffled[:60], describe(points[60:])) == labels[60:]).mean() < 0.7


def test_headings_are_measured() -> None:
    points, labels = boxes(120, 0)
    assert rotate_for(points, labels) == "none"
    assert rotate_for(turned(points, upright=True), labels) == "up"
    assert rotate_for(turned(points, upright=False), labels) == "any"


def test_too_few_shapes_to_tell_are_turned() -> None:
    points, labels = boxes(6, 0)
    assert rotate_for(points, labels) == "up"
    assert rotate_for(points[:3], labels[:3]) == "up"  # no two of a class


def test_first_look_at_a_folder(easy_root: Path) -> None:
    baseline, headings = first_look(easy_root / "modelnet10_ply_hdf5_2048")
    assert baseline.endswith("100.0% of the 3 validation clouds")
    assert "--rotate" in headings


def test_uneven_classes_are_named(easy_root: Path) -> None:
    clouds = PointClouds(torch.zeros(156, 4, 3), torch.tensor([0] * 150 + [1] * 6), ["bolt", "clip"])
    assert uneven(clouds) == [
        "the classes are uneven (150 of bolt, 6 of clip): --class-weights balanced lets each count alike"
    ]
    assert uneven(PointClouds(torch.zeros(9, 4, 3), torch.arange(9) % 2, ["a", "b"])) == []


def test_first_look_where_nothing_is_left_for_validation(tmp_path: Path, write_file) -> None:
    (tmp_path / "shape_names.txt").write_text("a\nb\n")
    for split in ("train", "test"):
        write_file(tmp_path / f"ply_data_{split}0.h5", [0, 1])
    assert first_look(tmp_path) == ["no classical baseline: The val split holds no clouds; choose another split."]


@pytest.mark.parametrize("upright", [True, False])
def test_turns_are_rotations(upright: bool) -> None:
    points = boxes(3, 0)[0].astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(turned(points, upright), axis=2), np.linalg.norm(points, axis=2))
    assert np.linalg.det(random_turn(np.random.default_rng(0))) == pytest.approx(1)
