"""DGCNNSeg: its published size, its symmetries, the micro-batch law, and that it learns parts."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.models import DGCNNSeg
from dgcnn_ws.nn import NORMS, WSConv1d, WSConv2d, WSLinear, one_update

SMALL = {"k": 5, "widths": ((8, 8), (12,)), "emb_dims": 24, "hidden": (16, 12), "groups": 4, "num_categories": 3}
CATEGORY = torch.tensor([0, 2, 1, 1])


def network(norm: str, head_norm: str | None = None, **kwargs: object) -> DGCNNSeg:
    """Return a small network in double precision, without dropout, whose statistics have seen a batch."""
    torch.manual_seed(0)
    model = DGCNNSeg(4, norm=norm, head_norm=head_norm, **{**SMALL, "dropout": 0.0, **kwargs}).double()
    with torch.no_grad():
        model(clouds(seed=7), CATEGORY if model.num_categories else None)
    return model


def clouds(points: int = 24, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(4, 3, 1, generator=generator, dtype=torch.float64)
    return torch.randn(4, 3, points, generator=generator, dtype=torch.float64) * spread


def accumulate(model: nn.Module, micro_batch: int) -> dict[str, Tensor]:
    """Return the gradients of the mean loss over four clouds that the model sees in micro-batches."""
    model = copy.deepcopy(model)
    parts = torch.arange(4 * 24).view(4, 24) % 4
    with one_update(model):
        for x, category, y in zip(*(t.split(micro_batch) for t in (clouds(), CATEGORY, parts)), strict=True):
            F.cross_entropy(model(x, category), y, reduction="sum").backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**gradients, **dict(model.named_buffers())}


def test_published_number_of_parameters() -> None:
    """The published layers without T-Net, by hand: convolutions, and two factors for each channel of a norm."""
    edges = 6 * 64 + 64 * 64 + 128 * 64 + 64 * 64 + 128 * 64
    points = 192 * 1024 + 16 * 64 + (1024 + 64 + 192) * 256 + 256 * 256 + 256 * 128 + 128 * 50
    norms = 2 * (5 * 64 + 1024 + 64 + 256 + 256 + 128)
    with torch.device("meta"):
        model = DGCNNSeg(50, norm="bn", num_categories=16)
    assert sum(parameter.numel() for parameter in model.parameters()) == edges + points + norms


@pytest.mark.parametrize("norm", NORMS)
def test_only_layers_that_a_norm_follows_are_standardized(norm: str) -> None:
    plain = {"last"} if norm.endswith("_bn") else {"last", "category.0"}
    for name, module in DGCNNSeg(norm=norm, **SMALL).named_modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            standardized = isinstance(module, (WSConv1d, WSConv2d, WSLinear))
            assert standardized == (norm.startswith("ws_") and name not in plain), name


@pytest.mark.parametrize("tnet", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_parts_follow_the_order_of_points(norm: str, tnet: bool) -> None:
    model, x, order = network(norm, tnet=tnet).eval(), clouds(), torch.randperm(24)
    logits = model(x, CATEGORY)
    assert logits.shape == (4, 4, 24)
    torch.testing.assert_close(model(x[..., order], CATEGORY), logits[..., order])
    assert not torch.allclose(model(x, CATEGORY.flip(0)), logits)
    alone = [model(part, category) for part, category in zip(x.split(1), CATEGORY.split(1), strict=True)]
    torch.testing.assert_close(torch.cat(alone), logits)


@pytest.mark.parametrize("norm", NORMS)
def test_backends_agree(norm: str) -> None:
    reference, fused = (network(norm, backend=backend, tnet=True) for backend in ("reference", "fused"))
    expected, found = accumulate(reference, 4), accumulate(fused, 4)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "norm, head_norm, micro_batch",
    [("gn", "none", 1), ("gn", "gn", 1), ("ws_gn", "ln", 1), ("ws_gn", None, 1), ("ws_bcn", None, 2)],
)
def test_micro_batch_law(norm: str, head_norm: str | None, micro_batch: int) -> None:
    model = network(norm, head_norm, tnet=True)
    whole, parts = accumulate(model, 4), accumulate(model, micro_batch)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("norm", ["gn", "ws_gn", "ws_bcn"])
def test_default_network_trains_on_one_cloud(norm: str) -> None:
    model = DGCNNSeg(4, norm=norm, tnet=True, **SMALL)
    for seed in range(3):
        logits = model(clouds(seed=seed)[:1].float(), CATEGORY[:1])
        F.cross_entropy(logits, torch.arange(24)[None] % 4).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_with_features_beside_coordinates_and_without_categories() -> None:
    model = DGCNNSeg(7, in_channels=6, tnet=True, **{**SMALL, "num_categories": 0})
    assert model(torch.randn(2, 6, 9)).shape == (2, 7, 9)


def test_errors() -> None:
    model = network("gn")
    with pytest.raises(InputError, match="k=5 neighbours need at least 5 points; this cloud has 4"):
        model(clouds(4), CATEGORY)
    with pytest.raises(InputError, match="a category for each of 4 clouds; none was given"):
        model(clouds())
    with pytest.raises(InputError, match=r"a category for each of 4 clouds; this one has shape \(3,\)"):
        model(clouds(), CATEGORY[:3])
    with pytest.raises(InputError, match="network without categories"):
        network("gn", num_categories=0)(clouds(), CATEGORY)
    for kwargs in ({"norm": "in"}, {"head_norm": "in"}, {"backend": "in"}):
        with pytest.raises(InputError, match="'in' is unknown"):
            DGCNNSeg(**kwargs)
    with pytest.raises(InputError, match="in_channels=2"):
        DGCNNSeg(in_channels=2, tnet=True)
