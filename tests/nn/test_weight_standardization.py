"""Weight standardization: the paper's formula and its gradient, and drop-in layers."""

import math

import pytest
import torch
from torch import Tensor, nn

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn import WSConv1d, WSConv2d, WSConv3d, WSLinear, standardize_weight

Row = list[float]
LAYERS = [
    (WSConv1d, nn.Conv1d, (6, 4, 3), {}, (2, 6, 11)),
    (WSConv1d, nn.Conv1d, (6, 4, 3), {"stride": 2, "padding": 4, "dilation": 2, "groups": 2}, (2, 6, 11)),
    (WSConv1d, nn.Conv1d, (6, 4, 3), {"padding": 2, "padding_mode": "circular", "bias": False}, (2, 6, 11)),
    (WSConv2d, nn.Conv2d, (6, 4, 3), {}, (2, 6, 9, 8)),
    (WSConv2d, nn.Conv2d, (6, 4, (3, 2)), {"stride": (2, 1), "dilation": 2, "groups": 2}, (2, 6, 9, 8)),
    (WSConv2d, nn.Conv2d, (6, 4, 3), {"padding": 1, "padding_mode": "reflect", "bias": False}, (2, 6, 9, 8)),
    (WSConv3d, nn.Conv3d, (6, 4, (1, 3, 2)), {"stride": (1, 2, 1), "groups": 2}, (2, 6, 3, 9, 8)),
    (WSLinear, nn.Linear, (6, 4), {}, (2, 3, 6)),
    (WSLinear, nn.Linear, (6, 4), {"bias": False}, (2, 6)),
]


def moments(row: Row) -> tuple[float, float]:
    mean = math.fsum(row) / len(row)
    return mean, math.sqrt(math.fsum((w - mean) ** 2 for w in row) / (len(row) - 1))


def literal(weight: Tensor) -> Tensor:
    """The formula, one filter at a time, in double precision."""
    rows = []
    for row in weight.double().flatten(1).tolist():
        mean, std = moments(row)
        rows.append([(w - mean) / (std + 1e-5) for w in row])
    return torch.tensor(rows, dtype=torch.float64).view(weight.shape)


def literal_gradient(weight: Tensor, g: Tensor) -> Tensor:
    """Its gradient by hand: with u = w - mean, s = std, t = s + eps, and g the gradient of w_hat,

    dw = (g - mean(g)) / t - u sum(g u) / ((n - 1) s t^2)
    """
    rows = []
    for row, g_row in zip(weight.double().flatten(1).tolist(), g.double().flatten(1).tolist(), strict=True):
        (mean, std), g_mean, n = moments(row), math.fsum(g_row) / len(g_row), len(row)
        along = math.fsum(g_i * (w - mean) for g_i, w in zip(g_row, row, strict=True))
        curve = along / ((n - 1) * std * (std + 1e-5) ** 2)
        rows.append([(g_i - g_mean) / (std + 1e-5) - (w - mean) * curve for g_i, w in zip(g_row, row, strict=True)])
    return torch.tensor(rows, dtype=torch.float64).view(weight.shape)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-4)])
@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 2), (3, 4, 3, 3), (2, 512, 1, 1)])
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_formula_and_gradient(shape: tuple[int, ...], dtype: torch.dtype, tolerance: float, spread: float) -> None:
    torch.manual_seed(0)
    weight = (0.3 + torch.randn(shape)).mul(spread).to(dtype).requires_grad_()
    g = torch.randn(shape, dtype=dtype)
    out = standardize_weight(weight)
    out.backward(g)
    exact = literal_gradient(weight.detach(), g)
    assert out.dtype == dtype and weight.grad is not None
    assert (out - literal(weight.detach())).abs().max() < tolerance
    assert (weight.grad - exact).abs().max() < tolerance * exact.abs().max()


def test_gradients_of_gradients() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(standardize_weight, (weight,))
    cubed = torch.func.grad(lambda w: standardize_weight(w).pow(3).sum())
    twice = torch.func.grad(lambda w: cubed(w).square().sum())(weight.detach())
    (once,) = torch.autograd.grad(standardize_weight(weight).pow(3).sum(), weight, create_graph=True)
    (expected,) = torch.autograd.grad(once.square().sum(), weight)
    torch.testing.assert_close(twice, expected)


def test_row_mean_0_and_row_std_1() -> None:
    torch.manual_seed(0)
    rows = standardize_weight(7 + 3 * torch.randn(16, 8, 3, 3)).flatten(1)
    assert rows.mean(1).abs().max() < 1e-5
    assert (rows.std(1) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("layer, plain, args, kwargs, shape", LAYERS)
def test_same_as_torchs_layer_with_standardized_weight(
    layer: type[nn.Module], plain: type[nn.Module], args: tuple, kwargs: dict, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    ours = layer(*args, **kwargs, dtype=torch.float64, device="cpu")
    theirs = plain(*args, **kwargs, dtype=torch.float64, device="cpu")
    x = torch.randn(shape, dtype=torch.float64)
    theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        theirs.weight.copy_(literal(theirs.weight))
    out, expected = ours(x), theirs(x)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)
    g = torch.randn_like(out)
    out.backward(g)
    expected.backward(g)
    # The gradient of the pre-standardized weight, taken through the formula by hand.
    through = literal_gradient(ours.weight.detach(), theirs.weight.grad)
    torch.testing.assert_close(ours.weight.grad, through, rtol=1e-9, atol=1e-9)


def test_the_parameter_itself_is_left_alone() -> None:
    layer = WSLinear(6, 4)
    before = layer.weight.detach().clone()
    layer(torch.randn(2, 6))
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("layer, kernel", [(WSConv1d, (1,)), (WSConv2d, (1,)), (WSLinear, ())])
def test_float32_statistics_under_autocast(layer: type[nn.Module], kernel: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    module = layer(512, 8, *kernel, bias=False)
    with torch.no_grad():  # bfloat16 keeps 8 bits: it would see the constant 1
        module.weight.copy_(1 + 1e-3 * torch.randn(module.weight.shape))
    x = torch.randn(4, 512)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x.view(4, 512, *module.weight.shape[2:]))
    assert out.dtype == torch.bfloat16
    exact = x.double() @ literal(module.weight.detach()).flatten(1).T
    assert (out.flatten(1).double() - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("dtype, precision", [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_float32_statistics_for_half_weights(dtype: torch.dtype, precision: float) -> None:
    torch.manual_seed(0)
    weight = (0.02 + 1e-3 * torch.randn(4, 512)).to(dtype)
    out = standardize_weight(weight)
    exact = literal(weight)
    assert out.dtype == dtype
    assert (out.double() - exact).abs().max() < precision * exact.abs().max()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0])
def test_constant_filter_has_zero_weights_and_finite_gradient(value: float) -> None:
    weight = torch.full((2, 3, 5), value, requires_grad=True)
    out = standardize_weight(weight)
    out.backward(torch.randn(2, 3, 5))
    assert out.abs().max() < 0.05
    assert weight.grad is not None and weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "layer, args, kwargs",
    [
        (WSLinear, (1, 4), {}),
        (WSConv1d, (1, 4, 1), {}),
        (WSConv2d, (4, 4, 1), {"groups": 4}),
    ],
)
def test_fan_in_1_is_refused(layer: type[nn.Module], args: tuple[int, ...], kwargs: dict) -> None:
    with pytest.raises(InputError, match=f"{layer.__name__} with fan-in 1: one weight per filter"):
        layer(*args, **kwargs)
