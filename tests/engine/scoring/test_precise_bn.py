"""Statistics measured anew are those of all values in float64, wherever they started and however they are batched."""

import pytest
import torch
from torch import nn

from dgcnn_ws import DGCNN
from dgcnn_ws.datasets import PointClouds
from dgcnn_ws.engine.scoring.evaluation import evaluate
from dgcnn_ws.engine.scoring.precise_bn import re_estimate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clouds() -> PointClouds:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(12, 24, 3, generator=generator) + torch.randn(12, 1, 3, generator=generator)
    return PointClouds(points, torch.arange(12) % 3, ["ball", "pole", "sheet"])


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_first_norm_has_the_statistics_of_all_values(clouds: PointClouds, batch_size: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 5, 1), nn.BatchNorm1d(5), nn.ReLU(), nn.BatchNorm1d(5))
    nn.init.constant_(model[1].running_mean, 7)  # what was there before does not count
    assert re_estimate(model, clouds, batch_size, CPU) == 2
    assert not model.training and model[1].momentum == 0.1
    values = model[0].double()(clouds.points.double().transpose(1, 2)).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean.double(), values.mean(1), rtol=1e-5, atol=1e-6)
    # Within a batch torch divides by n - 1.
    torch.testing.assert_close(model[1].running_var.double(), values.var(1), rtol=0.05, atol=0)


def test_fused_and_reference_networks_get_the_same(clouds: PointClouds) -> None:
    found = []
    for backend in ("fused", "reference"):
        torch.manual_seed(1)
        model = DGCNN(3, k=4, norm="bn", head_norm="est", emb_dims=16, backend=backend)
        re_estimate(model, clouds, 2, CPU)
        found.append({name: value for name, value in model.state_dict().items() if "running" in name})
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-3, atol=1e-4, msg=name)


def test_running_estimates_after_a_batch_norm_are_of_what_they_see_now(clouds: PointClouds) -> None:
    torch.manual_seed(0)
    model = DGCNN(3, k=4, norm="bn", head_norm="est", emb_dims=16)
    seen: list[torch.Tensor] = []
    model.head.pooled_norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert re_estimate(model, clouds, 5, CPU) == 6
    assert not any(module.training for module in model.modules())
    seen.clear()
    with torch.no_grad():
        model(clouds.points.transpose(1, 2))
    var, mean = torch.var_mean(seen[0].double(), 0, unbiased=False)
    torch.testing.assert_close(model.head.pooled_norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.head.pooled_norm.running_var.double(), var, rtol=1e-3, atol=1e-5)


def test_running_estimates_that_training_used_are_left_alone(clouds: PointClouds) -> None:
    torch.manual_seed(0)
    model = DGCNN(3, k=4, norm="ws_bcn", emb_dims=16)
    before = evaluate(model, clouds, 4, CPU).loss
    assert re_estimate(model, clouds, 4, CPU) == 0
    assert evaluate(model, clouds, 4, CPU).loss == before


def test_a_batch_norm_in_the_head_needs_more_than_one_cloud(clouds: PointClouds) -> None:
    model = DGCNN(3, k=4, norm="bn", emb_dims=16)
    with pytest.raises(ValueError, match="more than 1 value"):
        re_estimate(model, clouds, 1, CPU)
    assert not model.training
