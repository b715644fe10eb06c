"""Whole networks and single layers in `.half()`, `.bfloat16()` and `.double()`, against float64 of the same weights."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dgcnn_ws import DGCNN, DGCNNSeg, DGCNNTNet, EdgeConv
from dgcnn_ws.errors import InputError
from dgcnn_ws.models.head import HEAD_NORMS
from dgcnn_ws.nn import NORMS, BatchChannelNorm, GlobalFeature, PointConv, one_update
from dgcnn_ws.nn.pyg import DynamicEdgeConv

POINTS = 12  # all of them each other's neighbours: or a rounding might give one other ones
# Relative errors of outputs, and of all gradients together, of which a rounding may send some to another edge.
BOUNDS = {torch.float64: (1e-9, 1e-7), torch.float16: (0.06, 0.6), torch.bfloat16: (0.3, 1.0)}

LAYERS: dict[str, Callable[..., nn.Module]] = {
    "EdgeConv": lambda **kw: EdgeConv(3, 16, POINTS, **kw),
    "EdgeConv of two layers": lambda **kw: EdgeConv(3, [16, 16], POINTS, **kw),
    "EdgeConv mean": lambda **kw: EdgeConv(3, 16, POINTS, aggr="mean", **kw),
    "GlobalFeature": lambda **kw: GlobalFeature(3, 16, bias=True, **kw),
    "PointConv": lambda **kw: PointConv(3, 16, **kw),
}
SIZES = {"k": POINTS, "emb_dims": 32, "dropout": 0.0}
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "DGCNN": lambda **kw: DGCNN(4, widths=(16, 16), hidden=(16, 16), **SIZES, **kw),
    "DGCNNTNet": lambda **kw: DGCNNTNet(4, widths=(16, 16), hidden=(16, 16), **SIZES, **kw),
    "DGCNNSeg": lambda **kw: DGCNNSeg(5, widths=((16, 16), (16,)), hidden=(16, 16), tnet=True, **SIZES, **kw),
}


def step(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    out = module(x)
    out.float().square().mean().backward()
    gradients = [parameter.grad.flatten() for parameter in module.parameters() if parameter.grad is not None]
    assert all(gradient.dtype == x.dtype for gradient in gradients)
    assert out.dtype == x.dtype
    return out.detach().double(), torch.cat(gradients).double()


def is_ill_conditioned(module: nn.Module) -> bool:
    """Batch norm of four vectors that are nearly the same makes any rounding large."""
    return any(isinstance(norm, nn.BatchNorm1d) for norm in getattr(module, "head", nn.Identity()).modules())


def check(make: Callable[[], nn.Module], dtype: torch.dtype, training: bool) -> None:
    torch.manual_seed(0)
    module, exact = make(), make().double()
    x = torch.randn(4, 3, POINTS) * torch.tensor([0.5, 1.0, 1.5, 2.0]).view(4, 1, 1)  # clouds that differ
    for norm in module.modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.momentum = 1.0  # or the first batch would hardly move its statistics, and float16 overflow
    module(x)
    module.to(dtype).train(training)
    exact.load_state_dict(module.state_dict())
    exact.train(training)
    found, wanted = step(module, x.to(dtype)), step(exact, x.to(dtype).double())
    assert all(bool(one.isfinite().all()) for one in found)
    if dtype != torch.float64 and training and is_ill_conditioned(module):
        return
    errors = [float((one - other).norm() / other.norm()) for one, other in zip(found, wanted, strict=True)]
    assert all(error <= bound for error, bound in zip(errors, BOUNDS[dtype], strict=True)), errors


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_layers(dtype: torch.dtype, norm: str, backend: str, training: bool) -> None:
    for make in LAYERS.values():
        check(lambda make=make: make(norm=norm, backend=backend), dtype, training)


@pytest.mark.parametrize("head_norm", HEAD_NORMS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_networks(dtype: torch.dtype, network: str, head_norm: str) -> None:
    norm = "ws_bn" if head_norm == "bn" else "ws_bcn" if head_norm == "est" else "ws_gn"
    for training in (True, False):
        check(lambda: NETWORKS[network](norm=norm, head_norm=head_norm), dtype, training)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("kind", [*LAYERS, *NETWORKS])
def test_points_of_another_type_are_refused_in_one_sentence(kind: str, backend: str) -> None:
    module = (LAYERS | NETWORKS)[kind](norm="gn", backend=backend).half()
    for x in (torch.randn(2, 3, POINTS), torch.randn(2, 3, POINTS).double(), torch.randint(0, 9, (2, 3, POINTS))):
        with pytest.raises(InputError, match=rf"{x.dtype}[^\n]*(torch.float16|floating)[^\n]*$"):
            module(x)


@pytest.mark.parametrize("kind", [*LAYERS, *NETWORKS])
def test_autocast_does_not_make_float64_and_float32_one(kind: str) -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(InputError, match="float64"):
        (LAYERS | NETWORKS)[kind](norm="gn")(torch.randn(2, 3, POINTS).double())


def test_torch_geometrics_layout() -> None:
    layer, points, batch = DynamicEdgeConv(3, 16, 6), torch.randn(50, 3), torch.arange(2).repeat_interleave(25)
    exact = layer(points, batch)
    for dtype, tolerance in ((torch.float16, 1e-2), (torch.bfloat16, 6e-2)):
        found = layer.to(dtype)(points.to(dtype), batch)
        assert found.dtype == dtype
        assert float((found.float() - exact).norm() / exact.norm()) < tolerance


def test_running_estimates_of_many_clouds_are_counted_in_float32() -> None:
    norm = BatchChannelNorm(4, 2).bfloat16()
    x = torch.randn(600, 4, 8).bfloat16()
    with one_update(norm):  # bfloat16 cannot count beyond 256
        for cloud in x.split(1):
            norm(cloud)
    torch.testing.assert_close(norm.running_mean, x.float().mean((0, 2)).bfloat16(), rtol=0.02, atol=1e-3)
    torch.testing.assert_close(norm.running_var, x.float().var((0, 2)).bfloat16(), rtol=0.02, atol=0)
