"""bfloat16 features: what the loops read and write, neighbours as exact as the features, and no copies on the way."""

import pytest
import torch
from torch import Tensor

from dgcnn_ws import DGCNN
from dgcnn_ws.ops import cpu, knn, linear, reference

HALF = 2.0**-8  # a bfloat16 is off by half of this, relatively; two roundings of one number may differ by all of it


def draw(*shape: int, seed: int = 0, offset: float = 0.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) + offset).bfloat16()


def agree(actual: Tensor | tuple[Tensor, ...], expected: Tensor | tuple[Tensor, ...]) -> None:
    """Of float64 results of the same numbers: bfloat16 ones are the nearest, or next to it where two are as near."""
    actual, expected = ((t,) if isinstance(t, Tensor) else t for t in (actual, expected))
    for one, other in zip(actual, expected, strict=True):
        if not one.is_floating_point():
            assert torch.equal(one, other)
            continue
        rtol = HALF if one.dtype == torch.bfloat16 else 1e-5
        largest = float(other.abs().max()) if other.numel() else 0.0
        torch.testing.assert_close(one.double(), other.double(), rtol=rtol, atol=1e-5 * max(largest, 1e-3))


@pytest.mark.parametrize(("batch", "num_points", "k", "channels"), [(1, 1, 1, 1), (2, 33, 5, 19), (1, 90, 20, 130)])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_loops_read_and_write_bfloat16(batch: int, num_points: int, k: int, channels: int, offset: float) -> None:
    ab, use_max = draw(batch, num_points, 2 * channels, offset=offset), torch.arange(channels) % 3 > 0
    idx = torch.rand(batch, num_points, num_points, generator=torch.Generator().manual_seed(k)).argsort(-1)[..., :k]
    found, exact = cpu.edge_aggregate(ab, idx, use_max), reference.edge_aggregate(ab.double(), idx, use_max)
    assert found[0].dtype == torch.bfloat16 and found[2].dtype == torch.float32
    # Of equal neighbours, which bfloat16 has many of, any may be the extreme one.
    agree((found[0], *found[2:]), (exact[0], *exact[2:]))
    g, g_mean, g_var = draw(*found[0].shape, seed=1), draw(batch, channels, seed=2), draw(batch, channels, seed=3)
    for gradients in ((g, g_mean.float(), g_var.float()), (g, None, None)):
        backward = cpu.edge_aggregate_backward(ab, idx, found[1], found[2], *gradients)
        doubled = (None if t is None else t.double() for t in gradients)
        agree(backward, reference.edge_aggregate_backward(ab.double(), idx, found[1], exact[2], *doubled))
    x, scale, shift = ab[..., :channels].contiguous(), torch.randn(batch, channels), torch.randn(batch, channels)
    wide = x.double(), scale.double(), shift.double(), 0.2
    agree(cpu.scale_shift_act(x, scale, shift, 0.2), reference.scale_shift_act(*wide))
    agree(cpu.scale_shift_act_backward(g, x, scale, shift, 0.2), reference.scale_shift_act_backward(g.double(), *wide))
    extreme, arg, mean, var = cpu.column_moments(x, use_max)
    agree((extreme, mean, var), (*(reference.column_moments(x.double(), use_max)[i] for i in (0, 2, 3)),))
    agree(cpu.mean_act_parts(x, scale, shift, 0.2), reference.mean_act_parts(*wide))
    activated = torch.randn(batch, 4, channels, generator=torch.Generator().manual_seed(4))
    gradients = extreme.float(), g_mean.float(), g_var.float(), activated
    agree(
        cpu.column_moments_backward(x, arg, mean, *gradients),
        reference.column_moments_backward(x.double(), arg, mean.double(), *(t.double() for t in gradients)),
    )


def test_numbers_are_rounded_as_torch_rounds_them() -> None:
    bits = torch.randint(-(2**31), 2**31, (2**14,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    special = torch.tensor([0, 0x7F800000, -0x800000, 0x7FC00000, 0x7F800001, 1, 0x7F7FFFFF, 0x3F808000, 0x3F818000])
    numbers = torch.cat([bits, special.to(torch.int32)]).view(torch.float32).view(1, -1)
    ones = torch.ones(1, 1, numbers.shape[1]).bfloat16()
    written = cpu.scale_shift_act(ones, numbers, torch.zeros_like(numbers), 1.0)[0, 0]  # 1 x number + 0
    torch.testing.assert_close(written, numbers[0].bfloat16(), rtol=0, atol=0, equal_nan=True)


def trained_features() -> Tensor:
    """Return what a network's third block sees after some steps."""
    torch.manual_seed(0)
    network = DGCNN(4, k=8, widths=(32, 32, 64, 64), emb_dims=32, hidden=(16, 16))
    points, labels = torch.randn(4, 3, 128), torch.arange(4)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(points), labels).backward()
        optimizer.step()
    with torch.no_grad():
        x = network.edge_convs[1](network.edge_convs[0](points))
    return x.transpose(1, 2).bfloat16()


def clustered() -> Tensor:
    centres = torch.randn(1, 5, 40, generator=torch.Generator().manual_seed(5)).repeat_interleave(40, 1)
    return (centres + 0.02 * torch.randn(1, 200, 40, generator=torch.Generator().manual_seed(6))).bfloat16()


@pytest.mark.parametrize(
    "features",
    [
        lambda: draw(2, 150, 64),
        lambda: draw(2, 150, 3),
        lambda: draw(1, 200, 128, offset=100.0),
        lambda: draw(1, 200, 64) * torch.logspace(-20, 15, 64).bfloat16(),
        clustered,
        trained_features,
    ],
    ids=["random", "points", "far", "scales", "clustered", "trained"],
)
def test_neighbours_are_those_of_float64(features) -> None:
    x, k = features(), 12
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    found = distances.gather(2, knn(x, k)).sort(-1).values
    wanted = distances.sort(-1).values[..., :k]
    # float32 sums tell distances apart to this much of the squares that they are differences of.
    atol = 4e-7 * float(x.double().square().sum(-1).max())
    torch.testing.assert_close(found, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(("num_points", "channels", "k"), [(1, 17, 1), (70, 33, 70), (129, 20, 43), (1000, 18, 110)])
def test_neighbours_of_odd_sizes(num_points: int, channels: int, k: int) -> None:
    x = draw(2, num_points, 2 * channels)[..., ::2]
    distances = torch.cdist(x.double(), x.double()).square()
    found = distances.gather(2, knn(x, k)).sort(-1).values
    torch.testing.assert_close(found, distances.sort(-1).values[..., :k], rtol=1e-5, atol=1e-4)
    ties = knn(torch.ones(1, num_points, channels).bfloat16(), k)
    assert torch.equal(ties.sort(-1).values, torch.arange(k).expand(1, num_points, k))


def test_no_feature_changes_its_type_or_layout_in_the_loops() -> None:
    ab, channels = draw(2, 64, 128), 64
    idx, use_max = knn(ab[..., :3].float(), 5), torch.ones(channels, dtype=torch.bool)
    factor = torch.ones(2, channels)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profiler:
        extreme, arg, mean, var = cpu.edge_aggregate(ab, idx, use_max)
        cpu.edge_aggregate_backward(ab, idx, arg, mean, extreme, mean, var)
        x = cpu.scale_shift_act(extreme, factor, factor, 0.2)
        cpu.scale_shift_act_backward(x, extreme, factor, factor, 0.2)
        _, point, mean, var = cpu.column_moments(x, use_max)
        cpu.column_moments_backward(x, point, mean, mean, mean, var)
    for event in profiler.events():
        if event.name in ("aten::copy_", "aten::clone", "aten::contiguous"):
            for shape in event.input_shapes:
                assert torch.Size(shape).numel() < x.numel(), f"{event.name} of {shape}"


def test_linear_takes_float32_weights_under_autocast_and_gives_float32_gradients() -> None:
    x, weight, bias = draw(2, 9, 16).requires_grad_(), torch.randn(8, 16, requires_grad=True), torch.randn(8)
    with torch.autocast("cpu", torch.bfloat16):
        out = linear(x, weight, bias)
        from_float32 = linear(x.float(), weight, bias)
    assert out.dtype == from_float32.dtype == torch.bfloat16
    exact = x.double() @ weight.bfloat16().double().t() + bias.bfloat16().double()
    torch.testing.assert_close(out.double(), exact, rtol=HALF, atol=HALF)
    g = draw(2, 9, 8, seed=7)
    out.backward(g)
    assert weight.grad is not None and weight.grad.dtype == torch.float32
    expected = g.flatten(0, 1).double().t() @ x.detach().flatten(0, 1).double()
    torch.testing.assert_close(weight.grad.double(), expected, rtol=HALF, atol=1e-2)
    torch.testing.assert_close(x.grad.double(), g.double() @ weight.detach().double(), rtol=2 * HALF, atol=4 * HALF)


def gradients(network: DGCNN, points: Tensor, half: bool) -> tuple[Tensor, list[Tensor]]:
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = network(points)
    torch.nn.functional.cross_entropy(logits.float(), torch.arange(len(points))).backward()
    return logits.detach().double(), [p.grad.double() for p in network.parameters() if p.grad is not None]


@pytest.mark.parametrize("norm", ["ws_gn", "bn"])
def test_a_network_is_as_close_to_float64_as_the_reference_in_autocast(norm: str) -> None:
    errors: dict[str, list[float]] = {"reference": [], "fused": []}
    for seed in range(8):  # where a rounding gives a point another neighbour, one network's error doubles
        torch.manual_seed(seed)
        kwargs = {"k": 6, "widths": (16, 16, 32), "emb_dims": 32, "hidden": (16, 16), "dropout": 0.0}
        exact = DGCNN(4, norm=norm, head_norm="none", backend="reference", **kwargs).double()
        points = torch.randn(4, 3, 48)
        logits, wanted = gradients(exact, points.double(), half=False)
        for backend, found in errors.items():
            network = DGCNN(4, norm=norm, head_norm="none", backend=backend, **kwargs)
            network.load_state_dict(exact.float().state_dict())
            exact.double()
            half_logits, half_gradients = gradients(network, points, half=True)
            off = sum(float((a - b).square().sum()) for a, b in zip(half_gradients, wanted, strict=True))
            size = sum(float(b.square().sum()) for b in wanted)
            found += [float((half_logits - logits).norm() / logits.norm()), (off / size) ** 0.5]
    assert sum(errors["fused"]) <= 2 * sum(errors["reference"]), errors
