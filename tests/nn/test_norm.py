"""Norms by one word: what a word stands for, running estimates, and norms computed from moments."""

import copy

import pytest
import torch
from torch import Tensor, nn

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn import NORMS, BatchChannelNorm, WSConv1d, WSConv2d, WSLinear, one_update
from dgcnn_ws.nn.norm import (
    RunningEstimates,
    RunningStandardization,
    affine_from_moments,
    affine_sign,
    legal_groups,
    make_layer,
)

STANDARDIZED, PLAIN = (WSLinear, WSConv1d, WSConv2d), (nn.Linear, nn.Conv1d, nn.Conv2d)
BATCH = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)
TABLE = {
    "ws_gn": (STANDARDIZED, (nn.GroupNorm,) * 3),
    "gn": (PLAIN, (nn.GroupNorm,) * 3),
    "ws_bn": (STANDARDIZED, BATCH),
    "bn": (PLAIN, BATCH),
    "ws_bcn": (STANDARDIZED, (BatchChannelNorm,) * 3),
}
SHAPES = ((5, 12), (3, 12, 7), (3, 12, 4, 6))  # by the number of spatial dimensions


def randomise(module: nn.Module) -> nn.Module:
    """Give parameters both signs, and statistics something to have forgotten."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    for name, buffer in module.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_()
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
        elif name.endswith("num_updates"):
            buffer.fill_(3)
    return module


def values(*shape: int) -> Tensor:
    """Return (B, C, *) whose clouds and channels differ in mean and spread."""
    x = torch.randn(shape, dtype=torch.float64)
    per_channel = (*shape[:2], *(1,) * (len(shape) - 2))
    return 2 + x * torch.rand(per_channel, dtype=x.dtype) + torch.randn(per_channel, dtype=x.dtype)


@pytest.mark.parametrize("dims", [0, 1, 2])
@pytest.mark.parametrize("word", TABLE)
def test_table(word: str, dims: int) -> None:
    layer, norm = make_layer(word, 6, 12, bias=dims == 1, groups=8, eps=1e-3, dims=dims)
    layers, norms = TABLE[word]
    assert type(layer) is layers[dims] and type(norm) is norms[dims]
    assert norm.eps == 1e-3 and (layer.bias is not None) == (dims == 1)
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm):
        groups = 6 if dims else 3  # 8 does not divide 12; a vector's groups have four channels
        assert groups in (getattr(norm, "groups", None), getattr(norm, "num_groups", None))
    out = norm(layer(torch.randn(5, 6, *(4,) * dims)))
    assert out.shape == (5, 12, *(4,) * dims)


def test_the_table_is_complete_and_another_word_is_refused() -> None:
    assert list(NORMS) == list(TABLE)
    with pytest.raises(InputError, match=r"'ws_in' is unknown\. Choose one of ws_gn, gn, ws_bn, bn, ws_bcn\."):
        make_layer("ws_in", 6, 12, bias=False, groups=8, dims=0)


def test_legal_groups() -> None:
    for groups in range(1, 20):
        for channels in range(1, 40):
            divisors = [g for g in range(1, channels + 1) if channels % g == 0 and g <= groups]
            assert legal_groups(groups, channels) == max(divisors)
            assert legal_groups(groups, channels, 4) == max([g for g in divisors if channels // g >= 4], default=1)
    with pytest.raises(InputError, match="groups=0"):
        legal_groups(0, 16)


def formula(x: Tensor, norm: BatchChannelNorm, mean: list[float], var: list[float]) -> Tensor:
    """Batch-channel norm of (B, C, L) as it is printed, for given estimates."""
    B, C, _ = x.shape
    size = C // norm.groups
    standard = [(x[:, c] - mean[c]) / (var[c] + norm.eps) ** 0.5 for c in range(C)]
    affine = torch.stack([norm.weight[c] * standard[c] + norm.bias[c] for c in range(C)], 1)
    clouds = []
    for b in range(B):
        groups = []
        for g in range(norm.groups):
            part = affine[b, g * size : (g + 1) * size]
            centred = part - part.sum() / part.numel()
            spread = (centred.square().sum() / part.numel() + norm.eps) ** 0.5
            groups.append(norm.group_weight[g] * centred / spread + norm.group_bias[g])
        clouds.append(torch.cat(groups))
    return torch.stack(clouds)


def test_batch_channel_norm_is_its_formula() -> None:
    torch.manual_seed(0)
    norm = randomise(BatchChannelNorm(6, 3)).double()
    norm.num_updates.zero_()
    mean, var = norm.running_mean.tolist(), norm.running_var.tolist()
    for step in range(14):  # the first ten average, then the momentum 0.1 rules
        x = values(2, 6, 5).requires_grad_()
        g = torch.randn(2, 6, 5, dtype=torch.float64)
        out, expected = norm(x), formula(x, norm, mean, var)
        inputs = (x, *norm.parameters())
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(torch.autograd.grad(out, inputs, g), torch.autograd.grad(expected, inputs, g))
        rate = max(0.1, 1 / (step + 1))
        for c in range(6):
            seen = x.detach()[:, c].flatten().tolist()
            batch_mean = sum(seen) / 10
            old = batch_mean if step == 0 else mean[c]
            var[c] += rate * (sum((v - old) ** 2 for v in seen) / 10 - var[c])
            mean[c] += rate * (batch_mean - mean[c])
        torch.testing.assert_close(norm.running_mean.tolist(), mean)
        torch.testing.assert_close(norm.running_var.tolist(), var)
    before = copy.deepcopy(norm.state_dict())
    norm.eval()(values(2, 6, 5))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


def test_running_standardization_uses_the_estimates_from_before() -> None:
    torch.manual_seed(0)
    norm = RunningStandardization(4).double()
    first, second = values(8, 4), values(8, 4)
    torch.testing.assert_close(norm(first), first / (1 + 1e-5) ** 0.5)
    standard = (second - first.mean(0)) / (first.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(norm(second), standard)


@pytest.mark.parametrize("updates", [0, 1, 30])
@pytest.mark.parametrize("sizes", [(1,) * 6, (2, 2, 2), (4, 2)])
@pytest.mark.parametrize("make", [lambda: BatchChannelNorm(12, 4), lambda: RunningStandardization(12)])
def test_micro_batches_give_what_the_whole_batch_gives(
    make: type[RunningEstimates], sizes: tuple[int, ...], updates: int
) -> None:
    torch.manual_seed(0)
    shape = (6, 12, 7) if isinstance(make(), BatchChannelNorm) else (6, 12)
    whole = make().double()
    for _ in range(updates):
        whole(values(*shape))
    split, x = copy.deepcopy(whole), values(*shape)
    with one_update(whole):
        expected = whole(x)
    with one_update(nn.Sequential(split)):
        out = torch.cat([split(part) for part in x.split(sizes)])
    torch.testing.assert_close(out, expected)
    assert split.num_updates == updates + 1
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(split.state_dict()[name], value)
    # Outside again, every forward counts.
    split(x)
    assert split.num_updates == updates + 2


def test_parts_of_a_batch_in_several_places_give_what_the_whole_gives() -> None:
    whole = nn.Sequential(BatchChannelNorm(12, 4), nn.Flatten(), RunningStandardization(84)).double()
    here, there = copy.deepcopy(whole), copy.deepcopy(whole)
    x = values(6, 12, 7)
    seen: list[Tensor] = []
    with one_update(there, lambda sums: seen.append(sums.clone()) or sums):
        there(x[:2])
    with one_update(here, lambda sums: sums + seen[0]):
        here(x[2:4])
        here(x[4:])
    with one_update(whole):
        whole(x)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(here.state_dict()[name], value)


def test_a_block_that_raises_or_sees_nothing_leaves_the_estimates_alone() -> None:
    norm = randomise(BatchChannelNorm(6, 3))
    before, after = copy.deepcopy(norm.state_dict()), copy.deepcopy(norm)
    with pytest.raises(RuntimeError, match="stop"), one_update(norm):
        norm(torch.randn(2, 6, 5))
        raise RuntimeError("stop")
    with one_update(norm):
        norm.eval()(torch.randn(2, 6, 5))
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())
    x = torch.randn(2, 6, 5)
    norm.train()(x)
    after(x)
    assert torch.equal(norm.running_mean, after.running_mean), "what the broken block saw is forgotten"


def test_equal_large_values_do_not_give_a_negative_variance() -> None:
    norm = RunningStandardization(64)
    x = (100 + torch.rand(64)).expand(7, 64)
    norm(x)
    assert (norm.running_var >= 0).all() and norm(x).isfinite().all()


MOMENT_NORMS = {
    "group": lambda: nn.GroupNorm(4, 12),
    "one group": lambda: nn.GroupNorm(1, 12),
    "instance": lambda: nn.GroupNorm(12, 12),
    "batch": lambda: nn.BatchNorm1d(12, eps=1e-3),
    "batch, average": lambda: nn.BatchNorm1d(12, momentum=None),
    "batch, momentum": lambda: nn.BatchNorm1d(12, momentum=0.3),
    "batch, no statistics": lambda: nn.BatchNorm1d(12, track_running_stats=False),
    "batch-channel": lambda: BatchChannelNorm(12, 4),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", MOMENT_NORMS)
def test_affine_from_moments_is_the_norm(name: str, training: bool) -> None:
    torch.manual_seed(0)
    direct = randomise(MOMENT_NORMS[name]()).double().train(training)
    by_moments = copy.deepcopy(direct)
    for _ in range(3):
        x = values(3, 12, 7).requires_grad_()
        g = torch.randn(3, 12, 7, dtype=torch.float64)
        var, mean = torch.var_mean(x, dim=2, correction=0)
        scale, shift = affine_from_moments(by_moments, mean, var, 7)
        assert scale.shape == shift.shape == (3, 12)
        out, expected = scale.unsqueeze(2) * x + shift.unsqueeze(2), direct(x)
        torch.testing.assert_close(out, expected)
        torch.testing.assert_close(
            torch.autograd.grad(out, (x, *by_moments.parameters()), g),
            torch.autograd.grad(expected, (x, *direct.parameters()), g),
        )
        for key, value in direct.state_dict().items():
            torch.testing.assert_close(by_moments.state_dict()[key], value)
        rises = expected[..., 1] > expected[..., 0]
        assert torch.equal(affine_sign(by_moments).expand(3, 12) > 0, rises == (x[..., 1] > x[..., 0]))


def test_one_value_per_channel_has_no_batch_statistics() -> None:
    norm = nn.BatchNorm1d(12)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        affine_from_moments(norm, torch.zeros(1, 12), torch.zeros(1, 12), 1)


@pytest.mark.parametrize("norm", [RunningStandardization(6), BatchChannelNorm(6, 3)])
def test_compiled_training_uses_the_estimates_it_saw(norm: nn.Module) -> None:
    torch.compiler.reset()
    compiled = copy.deepcopy(norm)
    compiled.compile(fullgraph=True, backend="aot_eager")
    x = 0.1 * torch.randn(4, 6) + 1  # far from the first estimates, which these clouds replace
    results = []
    for module in (norm, compiled):
        leaf = x.clone().requires_grad_()
        module(leaf).square().sum().backward()
        results.append((leaf.grad, dict(module.named_buffers())))
    torch.testing.assert_close(results[1], results[0])
