"""Derivatives beyond the first in reverse mode: against finite differences, and torch.func against autograd."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dgcnn_ws import ops

SLOPE = 0.2


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape)), dtype=torch.float64)


def chain() -> dict[str, tuple[Callable[..., Tensor | tuple[Tensor, ...]], list[Tensor]]]:
    """Each operator as a function of all tensors that it is differentiable in."""
    clouds, points, k, widths = 2, 6, 3, (3, 4)
    idx = torch.randint(0, points, (clouds, points, k), generator=torch.Generator().manual_seed(1))
    sign = torch.tensor([1.0, -1, 1, -1])
    ab, scale, shift = draw(clouds, points, 2 * widths[0]), draw(clouds, widths[0]), draw(clouds, widths[0])

    def pooled(y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        points = ops.PooledPoints(y, sign[:3])
        return points.extreme, points.mean, points.var, points.mean_act(a, b, SLOPE)

    weight, bias, last = draw(widths[1], widths[0]), draw(widths[1]), [draw(clouds, widths[1]), draw(clouds, widths[1])]
    return {
        "edge_aggregate": (lambda ab: ops.edge_aggregate(ab, idx, sign[:3]), [ab]),
        "scale_shift_act": (
            lambda x, a, b: ops.scale_shift_act(x, a, b, SLOPE),
            [ab[..., :3].contiguous(), scale, shift],
        ),
        "column_moments": (lambda y: ops.column_moments(y, sign[:3]), [ab[..., :3].contiguous()]),
        "mean_act": (lambda y, a, b: ops.mean_act(y, a, b, SLOPE), [ab[..., :3].contiguous(), scale, shift]),
        "PooledPoints": (pooled, [ab[..., :3].contiguous(), scale, shift]),
        "layers_aggregate": (
            lambda ab, a, b, w, c: ops.layers_aggregate(ab, idx, ops.Layers([a], [b], [w], [c], SLOPE), sign),
            [ab, scale, shift, weight, bias],
        ),
        "edges_mean": (
            lambda ab, a, b, w, c, d, e: ops.edges_mean(ab, idx, ops.Layers([a, d], [b, e], [w], [c], SLOPE)),
            [ab, scale, shift, weight, bias, *last],
        ),
        "linear": (ops.linear, [draw(5, 3), weight, bias]),
    }


def scalar(function: Callable[..., Tensor | tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """Return a number that depends on every output, with a gradient that depends on every input."""

    def total(*inputs: Tensor) -> Tensor:
        outputs = function(*inputs)
        return sum(
            (
                (i + 1) * out.pow(2).sum()
                for i, out in enumerate([*outputs] if isinstance(outputs, tuple) else [outputs])
            ),
            torch.zeros(()),
        )

    return total


@pytest.mark.parametrize("name", chain())
def test_second_derivatives_are_those_of_finite_differences(name: str) -> None:
    function, inputs = chain()[name]
    assert torch.autograd.gradgradcheck(function, [x.requires_grad_() for x in inputs], fast_mode=True)


@pytest.mark.parametrize("name", chain())
def test_a_gradient_to_be_differentiated_again_is_the_same_gradient(name: str) -> None:
    function, inputs = chain()[name]
    for x in inputs:
        x.requires_grad_()
    once = torch.autograd.grad(scalar(function)(*inputs), inputs)
    again = torch.autograd.grad(scalar(function)(*inputs), inputs, create_graph=True)
    torch.testing.assert_close(again, once)
    (only,) = torch.autograd.grad(
        scalar(function)(inputs[0], *(x.detach() for x in inputs[1:])), inputs[:1], create_graph=True
    )
    torch.testing.assert_close(only, once[0])


@pytest.mark.parametrize("name", chain())
def test_torch_func_agrees_with_autograd(name: str) -> None:
    function, inputs = chain()[name]
    loss, places = scalar(function), tuple(range(len(inputs)))
    leaves = [x.clone().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    torch.testing.assert_close(torch.func.grad(loss, places)(*inputs), expected)
    tangents = tuple(x.flip(0) for x in inputs)
    along = sum((g * t).sum() for g, t in zip(expected, tangents, strict=True))
    torch.testing.assert_close(torch.func.jvp(loss, tuple(inputs), tangents)[1], along)
    one, other = (
        (torch.stack([x, 2 * x]) for x in inputs),
        (torch.func.grad(loss, places)(*(c * x for x in inputs)) for c in (1, 2)),
    )
    each = torch.func.vmap(torch.func.grad(loss, places))(*one)
    torch.testing.assert_close(each, tuple(torch.stack(pair) for pair in zip(*other, strict=True)))


@pytest.mark.parametrize("dilation", [1, 2])
def test_vmap_of_the_neighbour_search(dilation: int) -> None:
    clouds = draw(3, 2, 9, 4)
    found = torch.func.vmap(lambda x: ops.knn(x, 3, dilation), in_dims=1)(clouds)
    assert torch.equal(
        found.sort().values,
        ops.knn(clouds.transpose(0, 1).flatten(0, 1), 3, dilation).unflatten(0, (2, 3)).sort().values,
    )


def test_ties_keep_the_first_gradients_slots() -> None:
    """Equal neighbours: the gradient goes where the kernels sent it, whoever asks."""
    ab, idx = torch.zeros(1, 4, 4, dtype=torch.float64, requires_grad=True), torch.tensor([[[3, 1, 2]] * 4])

    def loss() -> Tensor:
        return ops.edge_aggregate(ab, idx, torch.tensor([1.0, -1.0]))[0].sum()

    torch.testing.assert_close(
        torch.autograd.grad(loss(), ab, create_graph=True), torch.autograd.grad(loss(), ab), rtol=0, atol=0
    )
