"""GlobalFeature against its formula in torch's own functions, and its two backends against each other."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn import NORMS, GlobalFeature, standardize_weight

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}


def block(norm: str, backend: str, dtype: torch.dtype = torch.float64, **kwargs: object) -> GlobalFeature:
    torch.manual_seed(1)
    module = GlobalFeature(6, 12, norm, backend, groups=4, **kwargs)
    for name, tensor in module.norm.state_dict().items():
        if name.endswith(("weight", "bias", "mean")):
            tensor.normal_()
        elif name.endswith("var"):
            tensor.uniform_(0.5, 2)
    return module.to(dtype)


def features(dtype: torch.dtype = torch.float64, batch: int = 3, points: int = 17) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(batch, 6, points, generator=generator, dtype=torch.float64).to(dtype)


def step(module: GlobalFeature, x: Tensor) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    out = module(x)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(4)).to(out))
    assert x.grad is not None
    gradients = {f"gradient of {name}": value.grad for name, value in module.named_parameters()}
    return {"output": out.detach(), "gradient of x": x.grad, **gradients, **dict(module.named_buffers())}


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("word", ["ws_gn", "gn", "ws_bn", "bn"])
def test_is_convolution_norm_activation_pooling(word: str, backend: str) -> None:
    module, x = block(word, backend), features()
    weight = standardize_weight(module.conv.weight) if word.startswith("ws_") else module.conv.weight
    y, weight, bias = F.conv1d(x, weight), module.norm.weight, module.norm.bias
    y = F.batch_norm(y, None, None, weight, bias, True) if "bn" in word else F.group_norm(y, 4, weight, bias)
    y = F.leaky_relu(y, 0.2)
    out = module(x)
    torch.testing.assert_close(out[:, :12], y.max(2).values)
    torch.testing.assert_close(out[:, 12:], y.mean(2))


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_autocast_keeps_of_the_means_what_clouds_differ_by(backend: str) -> None:
    """A head that takes off what all clouds have in common, as `est` does, has nothing else."""
    module, x = block("ws_gn", backend, torch.float32), features(torch.float32, batch=64)
    module.norm.bias.data.fill_(50)
    expected = module(x)[:, 12:]
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.float32 and 50 / expected.std(0).median() > 100
    assert ((out[:, 12:] - expected).std(0) / expected.std(0)).median() < 0.2  # rounded themselves: 0.66


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mean_pool", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_backends_agree_on_output_gradients_and_statistics(
    norm: str, mean_pool: bool, training: bool, dtype: torch.dtype
) -> None:
    # The network's two uses: LeakyReLU and both pools, ReLU with a bias and the maximum alone.
    kwargs = {} if mean_pool else {"act": nn.ReLU(), "bias": True, "mean_pool": False}
    expected, found = (
        step(block(norm, backend, dtype, **kwargs).train(training), features(dtype))
        for backend in ("reference", "fused")
    )
    assert found["output"].shape == (3, 24 if mean_pool else 12) and found.keys() == expected.keys()
    for name, value in expected.items():
        atol = TOLERANCE[dtype] * max(1.0, float(value.abs().max()))
        torch.testing.assert_close(found[name], value, rtol=0, atol=atol)


@pytest.mark.parametrize("norm", NORMS)
def test_order_of_points_does_not_matter(norm: str) -> None:
    module, x = block(norm, "auto").eval(), features()
    torch.testing.assert_close(module(x[..., torch.randperm(17)]), module(x))


def test_another_activation_runs_the_reference() -> None:
    expected = block("ws_gn", "reference", act=nn.GELU())(features())
    assert torch.equal(block("ws_gn", "auto", act=nn.GELU())(features()), expected)
    with pytest.raises(InputError, match="'fused' cannot move the maximum in front of GELU"):
        block("ws_gn", "fused", act=nn.GELU())
    with pytest.raises(InputError, match="backend 'fast' is unknown"):
        block("ws_gn", "fast")
