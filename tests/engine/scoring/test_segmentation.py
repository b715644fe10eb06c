"""Scores of parts against counts made by hand."""

import pytest
import torch
from torch import Tensor, nn

from dgcnn_ws.datasets import PartClouds, PointClouds
from dgcnn_ws.engine.scoring.segmentation import evaluate_parts

CPU = torch.device("cpu")
# Category "cup" has the parts body and handle, "box" has body alone; "lid" belongs to neither.
PARTS = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]])
ANSWERS = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 2]])
CATEGORIES = torch.tensor([0, 0, 1])


class Fixed(nn.Module):
    """Says what it is told: each point's answer is its first coordinate. Notes the categories it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.categories: list[int] = []

    def forward(self, x: Tensor, category: Tensor) -> Tensor:
        self.categories += category.tolist()
        return 9 * nn.functional.one_hot(x[:, 0].long(), 3).transpose(1, 2).float()


def clouds() -> PartClouds:
    points = torch.zeros(3, 4, 3)
    points[:, :, 0] = ANSWERS
    table = torch.tensor([[True, True, False], [True, False, False]])
    return PartClouds(PointClouds(points, CATEGORIES, ["cup", "box"], "test"), PARTS, ["body", "handle", "lid"], table)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 9])
def test_scores_of_clouds_counted_by_hand(batch_size: int) -> None:
    model = Fixed()
    scores = evaluate_parts(model, clouds(), batch_size, CPU)
    first = (1 / 2 + 2 / 3) / 2  # body: 1 of 2; handle: 2 of 3
    second = 1.0  # body: all; no handle, and none was said
    third = 3 / 4  # body: 3 of 4; the lid that was said counts there alone
    assert scores.instance_miou == pytest.approx((first + second + third) / 3)
    assert scores.per_category == {"cup": pytest.approx((first + second) / 2), "box": pytest.approx(third)}
    assert scores.class_miou == pytest.approx(((first + second) / 2 + third) / 2)
    assert scores.criterion == scores.instance_miou
    assert scores.overall_accuracy == pytest.approx(10 / 12)
    assert scores.per_class == {"body": pytest.approx(8 / 10), "handle": pytest.approx(1.0), "lid": None}
    assert scores.confusion == [[8, 1, 1], [0, 2, 0], [0, 0, 0]]
    assert scores.num_clouds == 3 and model.categories == CATEGORIES.tolist()
    logits = 9 * nn.functional.one_hot(ANSWERS, 3).transpose(1, 2).float()
    assert scores.loss == pytest.approx(nn.functional.cross_entropy(logits, PARTS).item(), rel=1e-5)


def test_votes_are_averaged() -> None:
    scores = evaluate_parts(Fixed(), clouds(), 2, CPU, votes=3)
    assert scores.num_clouds == 3 and scores.instance_miou <= 1
