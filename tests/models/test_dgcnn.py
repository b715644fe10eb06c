"""DGCNN: its published size, its symmetries, and the micro-batch law."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.models import DGCNN
from dgcnn_ws.nn import NORMS, WSConv1d, WSConv2d, WSLinear, one_update

SMALL = {"widths": (8, 8, 16), "emb_dims": 24, "hidden": (16, 12), "groups": 4, "k": 5}


def network(norm: str, head_norm: str | None = None, **kwargs: object) -> DGCNN:
    """Return a small network in double precision, without dropout, whose statistics have seen a batch."""
    torch.manual_seed(0)
    model = DGCNN(4, norm=norm, head_norm=head_norm, **{**SMALL, "dropout": 0.0, **kwargs}).double()
    with torch.no_grad():
        model(clouds(6, seed=7))
    return model


def clouds(batch: int, points: int = 24, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(batch, 3, 1, generator=generator, dtype=torch.float64)
    return torch.randn(batch, 3, points, generator=generator, dtype=torch.float64) * spread


def accumulate(model: nn.Module, micro_batch: int) -> dict[str, Tensor]:
    """Return the gradients of the mean loss over four clouds that the model sees in micro-batches."""
    model = copy.deepcopy(model)
    with one_update(model):
        for x, y in zip(clouds(4).split(micro_batch), torch.arange(4).split(micro_batch), strict=True):
            (F.cross_entropy(model(x), y, reduction="sum") / 4).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**gradients, **dict(model.named_buffers())}


def test_published_number_of_parameters() -> None:
    with torch.device("meta"):
        model = DGCNN(40, norm="bn")
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_809_576


@pytest.mark.parametrize("norm", NORMS)
def test_only_layers_that_a_norm_follows_are_standardized(norm: str) -> None:
    head_norm = "bn" if norm.endswith("bn") else "gn"
    layers = [
        module
        for module in DGCNN(norm=norm, head_norm=head_norm, **SMALL).modules()
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear))
    ]
    standardized = [isinstance(layer, (WSConv1d, WSConv2d, WSLinear)) for layer in layers]
    assert standardized == [norm.startswith("ws_")] * (len(layers) - 1) + [False]


@pytest.mark.parametrize("norm", NORMS)
def test_order_of_points_does_not_matter(norm: str) -> None:
    model, x = network(norm).eval(), clouds(2)
    torch.testing.assert_close(model(x[..., torch.randperm(24)]), model(x))
    assert not torch.allclose(model(clouds(2, seed=2)), model(x))


@pytest.mark.parametrize("norm", NORMS)
def test_a_cloud_in_eval_mode_is_alone(norm: str) -> None:
    model, x = network(norm).eval(), clouds(3)
    torch.testing.assert_close(model(x), torch.cat([model(part) for part in x.split(1)]))


@pytest.mark.parametrize("norm", NORMS)
def test_backends_agree(norm: str) -> None:
    reference, fused = network(norm, backend="reference"), network(norm, backend="fused")
    assert reference.state_dict().keys() == fused.state_dict().keys()
    expected, found = accumulate(reference, 4), accumulate(fused, 4)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "norm, head_norm, micro_batch",
    [
        ("gn", "none", 1), ("gn", "gn", 1), ("ws_gn", "ln", 1), ("ws_gn", None, 1), ("ws_gn", None, 3),
        ("ws_bcn", None, 1), ("ws_bcn", None, 3),
    ],
)  # fmt: skip
def test_micro_batch_law(norm: str, head_norm: str | None, micro_batch: int) -> None:
    model = network(norm, head_norm)
    whole, parts = accumulate(model, 4), accumulate(model, micro_batch)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["bn", "ws_bn"])
def test_batch_norm_breaks_the_micro_batch_law(norm: str) -> None:
    model = network(norm, "none")
    whole, parts = accumulate(model, 4), accumulate(model, 1)
    name = "edge_convs.0.conv.weight"
    assert (whole[name] - parts[name]).norm() > 0.1 * whole[name].norm()


@pytest.mark.parametrize("norm", ["gn", "ws_gn", "ws_bcn"])
def test_default_network_trains_on_one_cloud(norm: str) -> None:
    model = DGCNN(4, norm=norm, **SMALL)
    for seed in range(3):
        F.cross_entropy(model(clouds(1, seed=seed).float()), torch.tensor([2])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(
    "num_classes, channels, k, widths",
    [(1, 1, 1, (4,)), (7, 6, 24, (5, 7)), (100, 3, 2, (8, 16, 8, 8, 4))],
)
def test_any_size(num_classes: int, channels: int, k: int, widths: tuple[int, ...]) -> None:
    model = DGCNN(num_classes, k, in_channels=channels, widths=widths, emb_dims=10, hidden=(6,), groups=4)
    assert len(model.edge_convs) == len(widths)
    assert model(torch.randn(2, channels, 24)).shape == (2, num_classes)


def test_errors() -> None:
    with pytest.raises(InputError, match="k=5 neighbours need at least 5 points; this cloud has 4"):
        network("gn")(clouds(2, 4))
    for kwargs in ({"norm": "in"}, {"head_norm": "in"}, {"backend": "in"}):
        with pytest.raises(InputError, match="'in' is unknown"):
            DGCNN(**kwargs)
