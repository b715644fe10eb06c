"""Layers on edges against autograd through the formula, for every kind of pass over them."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.ops import on_edges

B, N, K, WIDTHS, SLOPE = 3, 13, 4, (5, 7, 6), 0.2


@pytest.fixture(params=["auto", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(on_edges.BLOCK_BYTES, "cpu", 4 * 8 * K * 7)  # four points
    with ops.kernels(request.param):
        yield request.param


def inputs(layers: int, affine: int, bias: bool, dtype: torch.dtype = torch.float64) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    return {
        "ab": [draw(B, N, 2 * WIDTHS[0])],
        "scales": [draw(B, WIDTHS[layer]) for layer in range(affine)],
        "shifts": [draw(B, WIDTHS[layer]) for layer in range(affine)],
        "weights": [draw(WIDTHS[layer + 1], WIDTHS[layer]) for layer in range(layers)],
        "biases": [draw(WIDTHS[layer + 1]) for layer in range(layers) if bias],
    }


def layers_of(given: dict[str, list[Tensor]]) -> ops.Layers:
    return ops.Layers(given["scales"], given["shifts"], given["weights"], given["biases"], SLOPE)


def neighbours() -> Tensor:
    return torch.randint(0, N, (B, N, K), generator=torch.Generator().manual_seed(2))


def literal(given: dict[str, list[Tensor]], idx: Tensor) -> list[Tensor]:
    """Return y_1, z_1, y_2, z_2, ... as far as scales and weights go."""
    a, b = given["ab"][0].chunk(2, dim=2)
    found = [torch.stack([a[cloud][idx[cloud]] for cloud in range(B)]) + b.unsqueeze(2)]
    for layer, (scale, shift) in enumerate(zip(given["scales"], given["shifts"], strict=True)):
        found.append(F.leaky_relu(found[-1] * scale[:, None, None] + shift[:, None, None], SLOPE))
        if layer < len(given["weights"]):
            bias = given["biases"][layer] if given["biases"] else 0
            found.append(found[-1] @ given["weights"][layer].T + bias)
    return found


def gradients(outs: list[Tensor], given: dict[str, list[Tensor]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outs]
    leaves = [tensor for tensors in given.values() for tensor in tensors]
    return list(torch.autograd.grad(outs, leaves, weights))


@pytest.mark.parametrize("layers, bias", [(1, True), (2, False)])
def test_layers_aggregate(kernels: str, layers: int, bias: bool) -> None:
    given, idx = inputs(layers, layers, bias), neighbours()
    sign = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, 1.0, -1.0])[: WIDTHS[layers]]
    found = ops.layers_aggregate(given["ab"][0], idx, layers_of(given), sign)
    y = literal(given, idx)[-1]
    expected = [torch.where(sign > 0, y.amax(2), y.amin(2)), y.mean((1, 2)), y.var((1, 2), correction=0)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    for part in (slice(3), slice(1), slice(1, 3)):  # also where a gradient is missing
        for ours, theirs in zip(gradients(list(found[part]), given), gradients(expected[part], given), strict=True):
            torch.testing.assert_close(ours, theirs)
        found = ops.layers_aggregate(given["ab"][0], idx, layers_of(given), sign)
        y = literal(given, idx)[-1]
        expected = [torch.where(sign > 0, y.amax(2), y.amin(2)), y.mean((1, 2)), y.var((1, 2), correction=0)]


@pytest.mark.parametrize("layers, bias", [(0, False), (1, True), (2, False)])
def test_edges_mean(kernels: str, layers: int, bias: bool) -> None:
    given, idx = inputs(layers, layers + 1, bias), neighbours()
    found = ops.edges_mean(given["ab"][0], idx, layers_of(given))
    expected = literal(given, idx)[-1].mean(2)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(gradients([found], given), gradients([expected], given), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_moments_far_from_zero_do_not_cancel(kernels: str) -> None:
    given, idx = inputs(1, 1, True, torch.float32), neighbours()
    given["biases"][0].data += 1e4
    sign = torch.ones(WIDTHS[1])
    _, _, var = ops.layers_aggregate(given["ab"][0], idx, layers_of(given), sign)
    exact = {name: [tensor.double() for tensor in tensors] for name, tensors in given.items()}
    expected = literal(exact, idx)[-1].var((1, 2), correction=0)
    torch.testing.assert_close(var.double(), expected, rtol=1e-2, atol=0)


def test_the_number_of_threads_changes_nothing() -> None:
    given, idx = inputs(1, 1, True, torch.float32), neighbours()
    results, threads = [], torch.get_num_threads()
    for count in (1, 3):
        torch.set_num_threads(count)
        found = ops.layers_aggregate(given["ab"][0], idx, layers_of(given), torch.ones(WIDTHS[1]))
        results.append([*found, *gradients(list(found), given)])
    torch.set_num_threads(threads)
    assert all(torch.equal(one, three) for one, three in zip(*results, strict=True))


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("weights", [torch.zeros(7, 6)], r"A weight of the layers has shape \(7, 6\); \(7, 5\) fits"),
        ("scales", [torch.zeros(B, 4)], r"A scale of the layers has shape \(3, 4\); \(3, 5\) fits"),
        ("shifts", [], "1 weights go with 1 scales and shifts"),
        ("biases", [torch.zeros(6)], r"A bias of the layers has shape \(6,\); \(7,\) fits"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, value: list[Tensor], message: str) -> None:
    given = inputs(1, 1, True) | {name: value}
    with pytest.raises(InputError, match=message):
        ops.layers_aggregate(given["ab"][0], neighbours(), layers_of(given), torch.ones(7))


def test_operators_are_registered_soundly() -> None:
    given, idx = inputs(1, 2, True), neighbours()
    given["scales"], given["shifts"] = given["scales"][:2], given["shifts"][:2]
    ab, scales, shifts, weights, biases = (given[name] for name in ("ab", "scales", "shifts", "weights", "biases"))
    use_max = torch.ones(WIDTHS[1], dtype=torch.bool)
    layers = ab[0], idx, scales[:1], shifts[:1], weights, biases, SLOPE, use_max
    torch.library.opcheck(on_edges.layers_aggregate.overload, layers)
    torch.library.opcheck(on_edges.edges_mean.overload, (ab[0], idx, scales, shifts, weights, biases, SLOPE))
