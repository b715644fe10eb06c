"""PointConv against its formula in torch's own functions, and its two backends against each other."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn import NORMS, PointConv, standardize_weight


def layer(norm: str, backend: str, shared_channels: int = 5) -> PointConv:
    torch.manual_seed(1)
    module = PointConv(6, 12, shared_channels, norm, backend, groups=4)
    for name, tensor in module.norm.state_dict().items():
        if name.endswith(("weight", "bias", "mean")):
            tensor.normal_()
        elif name.endswith("var"):
            tensor.uniform_(0.5, 2)
    return module.double()


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x, shared = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 6, 17), (3, 5)))
    return x, shared


def step(module: PointConv, *tensors: Tensor) -> dict[str, Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    out = module(*leaves)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(4)).to(out))
    gradients = {name: value.grad for name, value in module.named_parameters()}
    return {"output": out.detach(), "x": leaves[0].grad, "shared": leaves[-1].grad, **gradients} | dict(
        module.named_buffers()
    )


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("word", ["ws_gn", "gn", "ws_bn", "bn"])
def test_is_convolution_norm_activation_of_both_side_by_side(word: str, backend: str) -> None:
    module, (x, shared) = layer(word, backend), inputs()
    weight = standardize_weight(module.conv.weight) if word.startswith("ws_") else module.conv.weight
    y = F.conv1d(torch.cat([shared.unsqueeze(2).repeat(1, 1, 17), x], dim=1), weight)
    weight, bias = module.norm.weight, module.norm.bias
    y = F.batch_norm(y, None, None, weight, bias, True) if "bn" in word else F.group_norm(y, 4, weight, bias)
    torch.testing.assert_close(module(x, shared), F.leaky_relu(y, 0.2))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_backends_agree_on_output_gradients_and_statistics(norm: str, training: bool) -> None:
    expected, found = (step(layer(norm, backend).train(training), *inputs()) for backend in ("reference", "fused"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)


def test_in_single_precision_and_bfloat16() -> None:
    x, shared = inputs()
    expected = layer("ws_gn", "reference")(x, shared)
    single = layer("ws_gn", "fused").float()
    torch.testing.assert_close(single(x.float(), shared.float()).double(), expected, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = single(x.float(), shared.float())
    assert (rounded.double() - expected).norm() < 0.02 * expected.norm()


def test_without_a_shared_vector_and_with_another_activation() -> None:
    x, _ = inputs()
    for backend in ("fused", "reference"):
        module = layer("gn", backend, shared_channels=0)
        y = F.group_norm(F.conv1d(x, module.conv.weight), 4, module.norm.weight, module.norm.bias)
        torch.testing.assert_close(module(x), F.leaky_relu(y, 0.2))
    module = PointConv(6, 12, norm="gn", act=nn.GELU()).double()
    y = F.group_norm(F.conv1d(x, module.conv.weight), 12, module.norm.weight, module.norm.bias)
    torch.testing.assert_close(module(x), F.gelu(y))


def test_errors() -> None:
    x, shared = inputs()
    with pytest.raises(InputError, match=r"shape \(3, 5\); this layer takes \(3, 4\)"):
        layer("gn", "fused", shared_channels=4)(x, shared)
    with pytest.raises(InputError, match=r"shape \(3, 0\); this layer takes \(3, 5\)"):
        layer("gn", "fused")(x)
    with pytest.raises(InputError, match="'in' is unknown"):
        PointConv(6, 12, norm="in")
    with pytest.raises(InputError, match="GELU"):
        PointConv(6, 12, backend="fused", act=nn.GELU())
