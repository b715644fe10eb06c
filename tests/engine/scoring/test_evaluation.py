"""Scores against counts made by hand."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dgcnn_ws.datasets import PointClouds, load_dataset
from dgcnn_ws.engine.scoring.calibration import fit_temperature
from dgcnn_ws.engine.scoring.evaluation import (
    evaluate,
    evaluate_by_batch_statistics,
    scores_from_confusion,
    uses_batch_statistics,
)
from dgcnn_ws.models import DGCNN

CPU = torch.device("cpu")


def test_scores_of_a_matrix_counted_by_hand() -> None:
    confusion = torch.tensor([[8, 2, 0], [1, 1, 0], [0, 0, 0]])
    scores = scores_from_confusion(confusion, ["a", "b", "c"], 0.5)
    assert scores.overall_accuracy == pytest.approx(9 / 12)
    assert scores.mean_class_accuracy == pytest.approx((0.8 + 0.5) / 2)  # a class without clouds does not count
    assert scores.per_class == {"a": pytest.approx(0.8), "b": pytest.approx(0.5), "c": None}
    assert scores.num_clouds == 12


class Fixed(nn.Module):
    """Says what it is told: the logits stand in each cloud's first point."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, 0]


def test_every_cloud_is_scored_at_every_batch_size() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    answers = torch.tensor([0, 1, 2, 1, 1, 0, 0])
    points = torch.nn.functional.one_hot(answers, 3).float()[:, None].repeat(1, 4, 1)
    dataset = PointClouds(points, labels, ["a", "b", "c"], "test")
    for batch_size in (1, 2, 3, 7, 100):
        scores = evaluate(Fixed(), dataset, batch_size, CPU)
        assert scores.num_clouds == 7
        assert scores.confusion == [[2, 1, 0], [0, 2, 0], [1, 0, 1]]
        logits = points[:, 0]
        assert scores.loss == pytest.approx(nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)


@pytest.mark.parametrize("norm", ["ws_gn", "bn", "ws_bcn"])
def test_batch_size_does_not_change_a_networks_scores(easy_root: Path, norm: str) -> None:
    dataset = load_dataset("modelnet10", easy_root, "test", 32)
    dataset.points = dataset.points.double()  # in float32 rounding might choose another neighbour
    model = DGCNN(3, k=5, norm=norm, emb_dims=32).double()
    one, all_at_once = (evaluate(model, dataset, size, CPU) for size in (1, 11))
    assert one.confusion == all_at_once.confusion
    assert one.loss == pytest.approx(all_at_once.loss, rel=1e-5)


def test_votes_average_probabilities_and_repeat_exactly(easy_root: Path) -> None:
    dataset = load_dataset("modelnet10", easy_root, "test", 32)
    dataset.points = dataset.points.double()
    model = DGCNN(3, k=5, emb_dims=32).double()
    single, voted, again = (evaluate(model, dataset, 4, CPU, votes).loss for votes in (1, 3, 3))
    assert voted == again
    assert voted != single
    for size in (1, 11):
        assert evaluate(model, dataset, size, CPU, 3).loss == pytest.approx(voted, rel=1e-5)


def test_batch_norms_own_statistics_are_those_of_training(easy_root: Path) -> None:
    dataset = load_dataset("modelnet10", easy_root, "test", 32)
    model = DGCNN(3, k=5, norm="bn", emb_dims=32, dropout=0.0)
    assert uses_batch_statistics(model) and not uses_batch_statistics(DGCNN(3, k=5, emb_dims=32))
    before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    scores = evaluate_by_batch_statistics(model, dataset, len(dataset), CPU)  # one batch of all clouds
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    model.train()
    logits = model(dataset.points.transpose(1, 2))
    assert scores.loss == pytest.approx(nn.functional.cross_entropy(logits, dataset.labels).item(), rel=1e-4)
    for size in (2, 4, 5):  # 11 clouds: an incomplete last batch is scored too, each cloud once
        assert evaluate_by_batch_statistics(model, dataset, size, CPU).num_clouds == 11


def test_a_temperature_is_fitted_where_asked(easy_root: Path) -> None:
    dataset = load_dataset("modelnet10", easy_root, "test", 32)
    model = DGCNN(3, k=5, emb_dims=32)
    assert evaluate(model, dataset, 4, CPU).temperature is None
    scores = evaluate(model, dataset, 4, CPU, calibrate=True)
    logits = model(dataset.points.transpose(1, 2)).detach()
    assert scores.temperature == pytest.approx(fit_temperature(logits, dataset.labels), rel=1e-3)
    assert scores.metrics()["temperature"] == scores.temperature


def test_turned_copies_make_the_answer_indifferent_to_the_heading() -> None:
    """Four copies, a quarter turn apart, of a cloud that is turned by a quarter are the same four copies."""
    points = torch.randn(5, 30, 3)
    quarter = points @ torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    model = DGCNN(3, k=5, emb_dims=32)
    losses = [
        evaluate(model, PointClouds(clouds, torch.arange(5) % 3, ["a", "b", "c"]), 2, CPU, 4, rotate="up").loss
        for clouds in (points, quarter)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
