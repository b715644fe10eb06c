"""Predictions of clouds of any size, and the critical points' defining property."""

import numpy as np
import pytest
import torch

from dgcnn_ws.datasets.augment import rotations
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.prediction import predict
from dgcnn_ws.models import MODELS

CPU = torch.device("cpu")


def make(preset: str, norm: str = "ws_gn") -> torch.nn.Module:
    return MODELS[preset](4, 5, norm, emb_dims=32).eval()


def clouds(*sizes: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(size=(size, 3)) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("preset", MODELS)
def test_clouds_of_any_size_get_what_the_network_says_of_each_alone(preset: str) -> None:
    model = make(preset)
    given = clouds(20, 33, 20, 5)
    said = predict(model, given, CPU)
    width = 64 if preset == "dgcnn" else 32  # the paper's network has no mean
    assert said.features.shape == (4, width)
    for cloud, row, won in zip(given, said.probabilities, said.wins, strict=True):
        with torch.no_grad():
            logits = model(torch.from_numpy(cloud.T[None]).float())
        assert np.allclose(row, logits.softmax(1)[0], atol=1e-5)
        assert won.shape == (len(cloud),) and won.sum() == 32


@torch.inference_mode()
@pytest.mark.parametrize("norm", ["ws_gn", "bn"])
def test_without_the_other_points_the_maximum_is_the_same(norm: str) -> None:
    model = make("dgcnn", norm)
    entered: list[torch.Tensor] = []
    hook = model.global_feature.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    (wins,) = predict(model, clouds(60), CPU).wins
    hook.remove()
    assert 0 < (wins > 0).sum() <= 32
    feature = model.global_feature
    activated = feature.act(feature.norm(feature.conv(entered[0])))[0]  # (32, 60)
    critical = torch.from_numpy(wins > 0)
    assert torch.equal(activated[:, critical].amax(1), activated.amax(1))
    for point in critical.nonzero()[:, 0].tolist():  # and none of them could be left out
        others = torch.arange(60) != point
        assert (activated[:, others].amax(1) < activated.amax(1)).sum() == wins[point]


def test_watching_changes_nothing_and_leaves_nothing_behind() -> None:
    model = make("dgcnn")
    x = torch.randn(2, 3, 30)
    with torch.no_grad():
        before = model(x)
        predict(model, clouds(30), CPU)
        assert torch.equal(model(x), before)
    assert not model.global_feature._forward_pre_hooks


def test_too_few_points_and_no_number() -> None:
    with pytest.raises(InputError, match="5"):
        predict(make("dgcnn"), clouds(4), CPU)
    model = make("dgcnn")
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="not a number"):
        predict(model, clouds(20), CPU)


@torch.inference_mode()
def test_features_are_what_the_head_sees() -> None:
    model = make("dgcnn")
    given = clouds(40, 25)
    said = predict(model, given, CPU)
    logits = model.head(torch.from_numpy(said.features))  # type: ignore[operator]
    assert np.allclose(logits.softmax(1), said.probabilities, atol=1e-5)


@torch.inference_mode()
def test_temperature_and_views() -> None:
    """A temperature of 1 changes nothing, a large one flattens, the order stays; views are averaged."""
    model = make("dgcnn")
    given = clouds(40, 25)
    plain, flat = (predict(model, given, CPU, temperature=t).probabilities for t in (1.0, 50.0))
    logits = torch.stack([model(torch.from_numpy(cloud.T[None]).float())[0] for cloud in given]).double()
    assert np.allclose(flat, (logits / 50).softmax(1), atol=1e-6)
    assert (plain.argsort(1) == flat.argsort(1)).all()
    views = rotations("up", 3)
    averaged = predict(model, given, CPU, views=views).probabilities
    alone = [predict(model, [c @ v.numpy().T for c in given], CPU).probabilities for v in views]
    assert np.allclose(averaged, np.mean(alone, axis=0), atol=1e-5)
