"""The operators as torch sees them: schemas, tracing, autocast, the choice of kernels."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from dgcnn_ws.errors import InputError
from dgcnn_ws.ops import (
    column_moments,
    edge_aggregate,
    kernels,
    knn,
    mean_act,
    operators,
    reference,
    scale_shift_act,
)


def cloud(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)


def network(x: Tensor) -> Tensor:
    """Every public operator, one after the other."""
    idx, sign = knn(x, 5), torch.tensor([1.0, -1, 1, -1], device=x.device)
    extreme, mean, var = edge_aggregate(x, idx, sign)
    y = scale_shift_act(extreme, var, mean, 0.2)
    largest, mean, var = column_moments(y, sign)
    return mean_act(y, mean, var, 0.2).sum() + largest.sum()


def samples() -> dict[str, tuple]:
    x, idx, use_max = cloud(), torch.randint(0, 12, (2, 12, 5)), torch.tensor([True, False, True, False])
    y, factor = x[..., :4].contiguous(), torch.randn(2, 4)
    _, arg, mean, _ = reference.edge_aggregate(x, idx, use_max)
    _, point, centre, _ = reference.column_moments(y, use_max)
    needs = [t.clone().requires_grad_() for t in (x, y, factor, factor)]
    return {
        "knn": (x, 5),
        "edge_aggregate": (needs[0], idx, use_max),
        "edge_aggregate_backward": (x, idx, arg, mean, y, factor, None),
        "scale_shift_act": (*needs[1:], 0.2),
        "scale_shift_act_backward": (y, y, factor, factor, 0.2),
        "column_moments": (needs[1], use_max),
        "column_moments_backward": (y, point, centre, None, factor, factor),
        "mean_act": (*needs[1:], 0.2),
        "mean_act_backward": (factor, y, factor, factor, 0.2),
    }


@pytest.mark.parametrize("name", samples())
@pytest.mark.parametrize("choice", ["auto", "torch"])
def test_torchs_own_checks_pass(name, choice):
    with kernels(choice):
        torch.library.opcheck(getattr(operators, name).overload, samples()[name])


@pytest.mark.parametrize("choice", ["auto", "torch"])
def test_compiles_as_one_graph(choice):
    x = cloud().requires_grad_()
    with kernels(choice):
        expected = network(x)
        actual = torch.compile(network, fullgraph=True, backend="aot_eager")(x)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in (actual, expected)))


def test_autocast_changes_nothing_but_the_types_it_hands_in():
    x = cloud().requires_grad_()
    expected = torch.autograd.grad(network(x), x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(torch.autograd.grad(network(x), x)[0], expected)
        product = torch.nn.functional.linear(x, torch.eye(8))
        extreme, mean, var = edge_aggregate(product, knn(x, 5), torch.ones(4))
    assert (extreme.dtype, mean.dtype, var.dtype) == (torch.bfloat16, torch.float32, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("choice", ["auto", "torch"])
def test_half_precision_computes_in_float32(dtype, choice):
    x = cloud().to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    idx, sign = knn(x, 5), torch.tensor([1.0, -1, 1, -1])
    with kernels(choice):
        for half, full in zip(edge_aggregate(x, idx, sign), edge_aggregate(wide, idx, sign), strict=True):
            torch.testing.assert_close(half, full.to(half.dtype))
        (gradient,) = torch.autograd.grad(sum(t.float().sum() for t in edge_aggregate(x, idx, sign)), x)
        (expected,) = torch.autograd.grad(sum(t.sum() for t in edge_aggregate(wide, idx, sign)), wide)
        torch.testing.assert_close(gradient, expected.to(dtype), rtol=2e-2, atol=2e-2)
        assert network(x).dtype == torch.float32  # its means are not rounded


@pytest.mark.parametrize("choice", ["auto", "torch"])
def test_strides_do_not_matter(choice):
    x = cloud(torch.float64).requires_grad_()
    strided = x.detach().transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    with kernels(choice):
        a, b = network(x), network(strided)
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(torch.autograd.grad(a, x)[0], torch.autograd.grad(b, strided)[0])


def test_gradients_agree_with_finite_differences():
    x = cloud(torch.float64)[:, :, :6].clone().requires_grad_()
    idx, sign = knn(x, 4), torch.tensor([1.0, -1, 1])
    torch.autograd.gradcheck(lambda ab: edge_aggregate(ab, idx, sign), x)


def test_kernels_takes_two_names_and_restores_itself():
    with pytest.raises(InputError, match="numba"), kernels("numba"):
        pass
    with kernels("torch"):
        with kernels("auto"):
            assert operators._kernels_for(torch.ones(1)) is not reference
        assert operators._kernels_for(torch.ones(1)) is reference
    assert operators._kernels_for(torch.ones(1)) is not reference


def test_without_numba_the_reference_runs_after_one_warning():
    code = """
import sys, warnings
sys.modules["numba"] = None
import torch
from dgcnn_ws.ops import knn
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        knn(torch.randn(1, 8, 3), 2)
assert len(caught) == 1 and "numba" in str(caught[0].message), [str(w.message) for w in caught]
"""
    result = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
