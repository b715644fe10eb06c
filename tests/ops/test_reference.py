"""The reference against autograd on the literal (B, N, k, C) tensor, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgcnn_ws.ops import column_moments, edge_aggregate, kernels, knn, mean_act, scale_shift_act

SHAPES = [(1, 1, 1, 1), (1, 9, 1, 3), (3, 12, 5, 4), (2, 17, 17, 1), (0, 6, 2, 3)]  # B, N, k, C


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def agree(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> None:
    """Outputs and the gradients of one random weighting of them are the same to 1e-10."""
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weights = [torch.randn_like(output) for output in expected]
    gradients = [
        torch.autograd.grad(
            sum((w * o).sum() for w, o in zip(weights, outputs, strict=True)), inputs, retain_graph=True
        )
        for outputs in (actual, expected)
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("batch", "num_points", "k", "channels"), SHAPES)
def test_edge_aggregate_is_the_reduction_of_the_edge_tensor(batch, num_points, k, channels):
    ab, sign = random(batch, num_points, 2 * channels), random(channels, seed=1).detach()
    idx = torch.rand(batch, num_points, num_points).argsort(-1)[..., :k]
    with kernels("torch"):
        actual = edge_aggregate(ab, idx, sign)
        a, b = ab.split(channels, dim=-1)
        clouds = torch.arange(batch)[:, None, None]
        y = a[clouds, idx] + b[:, :, None]  # (B, N, k, C)
        extreme = torch.where(sign > 0, y.amax(2), y.amin(2))
        mean = y.mean((1, 2))
        agree(actual, (extreme, mean, ((y - mean[:, None, None]) ** 2).mean((1, 2))), (ab,))


@pytest.mark.parametrize(("batch", "num_points", "k", "channels"), SHAPES)
def test_column_moments_are_torchs(batch, num_points, k, channels):
    y, sign = random(batch, num_points, channels), random(channels, seed=1).detach()
    with kernels("torch"):
        extreme = torch.where(sign > 0, y.amax(1), y.amin(1))
        var = (y**2).mean(1) - y.mean(1) ** 2
        agree(column_moments(y, sign), (extreme, y.mean(1), var), (y,))


@pytest.mark.parametrize(("batch", "num_points", "k", "channels"), SHAPES)
@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_activations_are_torchs(batch, num_points, k, channels, slope):
    x, scale = random(batch, num_points, channels), random(batch, channels, seed=1)
    shift = random(batch, channels, seed=2)
    with kernels("torch"):
        expected = F.leaky_relu(scale[:, None] * x + shift[:, None], slope)
        agree((scale_shift_act(x, scale, shift, slope),), (expected,), (x, scale, shift))
        agree((mean_act(x, scale, shift, slope),), (expected.mean(1),), (x, scale, shift))


def test_equal_neighbours_send_the_gradient_to_the_first_slot():
    ab = torch.zeros(1, 3, 2, dtype=torch.float64, requires_grad=True)
    idx = torch.tensor([[[2, 1, 0]] * 3])
    with kernels("torch"):
        edge_aggregate(ab, idx, torch.ones(1))[0].sum().backward()
    assert ab.grad[0, :, 0].tolist() == [0, 0, 3]


def test_knn_returns_the_nearest_points():
    x = random(2, 30, 3).detach()
    with kernels("torch"):
        idx = knn(x, 4)
    for cloud in range(2):
        for i in range(30):
            distances = [float(((x[cloud, i] - x[cloud, j]) ** 2).sum()) for j in range(30)]
            assert set(idx[cloud, i].tolist()) == set(sorted(range(30), key=distances.__getitem__)[:4])
