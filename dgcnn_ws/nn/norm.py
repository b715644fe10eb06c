"""Normalisation by one word: which layer is standardized, which norm follows it, and how a norm acts on moments.

| word     | weights      | norm                                                                    |
|----------|--------------|-------------------------------------------------------------------------|
| `ws_gn`  | standardized | group norm (https://arxiv.org/abs/1803.08494)                           |
| `gn`     | plain        | group norm                                                              |
| `ws_bn`  | standardized | batch norm                                                              |
| `bn`     | plain        | batch norm                                                              |
| `ws_bcn` | standardized | batch-channel norm, micro-batch form (https://arxiv.org/abs/1911.09738) |

None in the word's place: plain weights, and `torch.nn.Identity` for a norm.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.batch_norm import batch_affine
from dgcnn_ws.nn.weight_standardization import WSConv1d, WSConv2d, WSLinear
from dgcnn_ws.ops.operators import snapshot

LEAST_OF_A_VECTOR = 4  # channels in a group where each is one number: of one a norm leaves nothing, of two the sign


def legal_groups(groups: int, channels: int, least: int = 1) -> int:
    """Return the largest number of groups that is at most `groups`, divides `channels` and puts `least` in each.

    Where there are not so many channels, they are one group.
    """
    if groups < 1:
        raise InputError(f"groups={groups} is no number of groups. Use 1 or more.")
    return next(g for g in range(min(groups, max(1, channels // least)), 0, -1) if channels % g == 0)


class RunningEstimates(nn.Module):
    """Mean and variance per channel that training itself normalises by, without a gradient through them.

    With r the momentum, m and s the mean of x and of (x − mean)² over a batch, the old mean in both:

        mean += r (m − mean),   var += r (s − var),   r = max(momentum, 1 / (updates + 1))

    so that the first batch sets them. Every training forward pass updates them *after* it has used the old ones.
    Inside `one_update(model)` they change once, at its end, over all forward passes within: then a batch
    split into micro-batches gives what the whole batch gives.
    """

    running_mean: Tensor
    running_var: Tensor
    num_updates: Tensor
    pending: Tensor

    def __init__(self, channels: int, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.deferred = False
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.long))
        # Sums over clouds of m, of s, and of 1: what has been seen since the last update.
        self.register_buffer("pending", torch.zeros(3, channels), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RunningEstimates":
        super()._apply(fn, recurse)
        if self.pending.dtype.itemsize < 4:  # in 8 bits a count of clouds would end at 256
            self.pending = self.pending.float()
        return self

    def estimates(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance as they are, apart from the buffers that a training forward pass then moves."""
        if not self.training:
            return self.running_mean, self.running_var
        copy = snapshot if torch.compiler.is_compiling() else torch.clone
        return copy(self.running_mean), copy(self.running_var)

    def reset_parameters(self) -> None:
        """Forget all that was observed."""
        for value, start in ((self.running_mean, 0), (self.running_var, 1), (self.num_updates, 0), (self.pending, 0)):
            value.fill_(start)

    @torch.no_grad()
    def observe(self, mean: Tensor, var: Tensor, seen: Tensor | None = None) -> None:
        """Take in the moments of a batch, a row per cloud: mean and biased variance, both (B, C).

        `seen` (B,) leaves out the rows where it is false.
        """
        mean, var = mean.to(self.pending.dtype), var.to(self.pending.dtype)
        square, one = var + (mean - self.running_mean).square(), torch.ones_like(mean)
        moments = torch.stack([mean, square, one])
        self.pending += (moments if seen is None else moments * seen.unsqueeze(1)).sum(1)
        if not self.deferred:
            self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Move the estimates towards what was observed since the last update; stay where that was nothing."""
        seen = self.pending[2, 0] > 0
        mean, square = self.pending[:2] / self.pending[2].clamp_min(1)
        rate = (1 / (self.num_updates + 1)).clamp_min(self.momentum).to(mean.dtype) * seen
        # Before the first update there is no old mean to measure squares from: use the batch's own. One cloud alone
        # has no spread about its mean.
        first = (self.num_updates == 0) & (self.pending[2] > 1)
        variance = torch.where(first, square - (mean - self.running_mean).square(), square)
        # A difference of squares may round below zero.
        for kept, seen_now in ((self.running_mean, mean), (self.running_var, variance.clamp_min(0))):
            kept.copy_(torch.lerp(kept.to(rate.dtype), seen_now, rate))
        self.num_updates += seen
        self.pending.zero_()


@contextmanager
def one_update(model: nn.Module, total: Callable[[Tensor], Tensor] | None = None) -> Iterator[None]:
    """Let the running estimates that `model` trains by change once, when the block ends, not at every forward.

    Wrap the micro-batches of one optimizer step in it. A block that raises leaves the estimates as they were.

    Args:
        total: where several processes each see a part of the batch, the sum of a tensor over all of them; called
            once, in every process. Their estimates then stay equal, and are those of one process that sees it whole.
    """
    estimates = [module for module in model.modules() if isinstance(module, RunningEstimates)]
    for module in estimates:
        module.deferred = True
    try:
        yield
        if total is not None and estimates:
            add_up([module.pending for module in estimates], total)
        for module in estimates:
            module.update()
    finally:
        for module in estimates:
            module.deferred = False
            module.pending.zero_()


def add_up(tensors: list[Tensor], total: Callable[[Tensor], Tensor]) -> None:
    """Replace tensors by their sums over all processes: `total` is called once, with all of them in one."""
    sums = total(torch.cat([tensor.flatten() for tensor in tensors]))
    for tensor, part in zip(tensors, sums.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


class RunningStandardization(RunningEstimates):
    """Standardize each channel of (B, C) by running estimates, without affine parameters: the `est` head."""

    def forward(self, input: Tensor) -> Tensor:
        mean, var = self.estimates()
        output = (input - mean) * (var + 1e-5).rsqrt()
        if self.training:
            values = input.detach().to(self.pending.dtype)
            self.observe(values, torch.zeros_like(values))
        return output.to(input.dtype)


class BatchChannelNorm(RunningEstimates):
    """Batch norm per channel by running estimates, then group norm with one affine pair per group.

        x' = weight (x − running_mean) / √(running_var + eps) + bias
        y  = group_weight (x' − μ_group) / √(σ²_group + eps) + group_bias

    The micro-batch form of https://arxiv.org/abs/1911.09738: the estimates are used in training too, without
    gradient through them (see `RunningEstimates`), so a cloud's output does not depend on the other clouds.
    Shapes: (B, C, *) -> (B, C, *).
    """

    def __init__(self, channels: int, groups: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, momentum)
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.group_weight = nn.Parameter(torch.ones(groups))
        self.group_bias = nn.Parameter(torch.zeros(groups))

    def reset_parameters(self) -> None:
        """Forget all that was observed; factors 1 and terms 0."""
        super().reset_parameters()
        for factor, term in ((self.weight, self.bias), (self.group_weight, self.group_bias)):
            nn.init.ones_(factor)
            nn.init.zeros_(term)

    def extra_repr(self) -> str:
        return f"{self.groups}, {len(self.weight)}, eps={self.eps}, momentum={self.momentum}"

    def per_channel(self, per_group: Tensor) -> Tensor:
        """Repeat a (groups,) tensor to (C,)."""
        return per_group.repeat_interleave(len(self.weight) // self.groups)

    def estimate_affine(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift (C,) of the batch-norm part."""
        mean, var = self.estimates()
        scale = self.weight * (var + self.eps).rsqrt()
        return scale, self.bias - mean * scale

    def forward(self, input: Tensor) -> Tensor:
        broadcast = (-1,) + (1,) * (input.dim() - 2)
        scale, shift = self.estimate_affine()
        # Before `observe`, which moves the estimates.
        channels = input * scale.view(broadcast) + shift.view(broadcast)
        if self.training:
            values = input.detach().reshape(*input.shape[:2], -1).to(scale.dtype)
            var, mean = torch.var_mean(values, dim=2, correction=0)
            self.observe(mean, var)
        weight, bias = self.per_channel(self.group_weight), self.per_channel(self.group_bias)
        return F.group_norm(channels, self.groups, weight, bias, self.eps)


Layer = nn.Linear | nn.Conv1d | nn.Conv2d
NormFactory = Callable[[int, int, float, int], nn.Module]


def _groups_of_layer(groups: int, channels: int, dims: int) -> int:
    return legal_groups(groups, channels, 1 if dims else LEAST_OF_A_VECTOR)


def _group_norm(channels: int, groups: int, eps: float, dims: int) -> nn.Module:
    return nn.GroupNorm(_groups_of_layer(groups, channels, dims), channels, eps)


def _batch_norm(channels: int, groups: int, eps: float, dims: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps) if dims == 2 else nn.BatchNorm1d(channels, eps)


def _batch_channel_norm(channels: int, groups: int, eps: float, dims: int) -> nn.Module:
    return BatchChannelNorm(channels, _groups_of_layer(groups, channels, dims), eps)


@dataclass(frozen=True)
class NormKind:
    """What a norm word stands for: layers by their number of spatial dimensions, and the norm's factory."""

    layers: tuple[Callable[..., Layer], ...]
    norm: NormFactory
    standardized: bool
    uses_batch_statistics: bool = False


_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d)
_STANDARDIZED = (WSLinear, WSConv1d, WSConv2d)

NORMS = {
    "ws_gn": NormKind(_STANDARDIZED, _group_norm, standardized=True),
    "gn": NormKind(_PLAIN, _group_norm, standardized=False),
    "ws_bn": NormKind(_STANDARDIZED, _batch_norm, standardized=True, uses_batch_statistics=True),
    "bn": NormKind(_PLAIN, _batch_norm, standardized=False, uses_batch_statistics=True),
    "ws_bcn": NormKind(_STANDARDIZED, _batch_channel_norm, standardized=True),
}


NO_NORM = NormKind(_PLAIN, lambda *_: nn.Identity(), standardized=False)


def norm_kind(word: str | None) -> NormKind:
    """Look a norm word up; None is no norm. Raises InputError where there is no such norm."""
    if word is None:
        return NO_NORM
    if word not in NORMS:
        raise InputError(f"norm {word!r} is unknown. Choose one of {', '.join(NORMS)}.")
    return NORMS[word]


def make_layer(
    word: str | None, in_channels: int, out_channels: int, *, bias: bool, groups: int, eps: float = 1e-5, dims: int
) -> tuple[Layer, nn.Module]:
    """Return a layer and the norm that follows it, as `word` says.

    Args:
        word: one of `NORMS`, or None for no norm.
        groups: groups of a group norm; lowered to the largest divisor of `out_channels`, after a linear layer to one
            that leaves four channels in a group.
        dims: 0 for a linear layer, 1 or 2 for a 1×1 convolution over as many dimensions.
    """
    kind = norm_kind(word)
    size = () if dims == 0 else (1,)
    layer = kind.layers[dims](in_channels, out_channels, *size, bias=bias)
    return layer, kind.norm(out_channels, groups, eps, dims)


# --- A norm as an affine map computed from moments, for the paths that never build the tensor it normalises. ---


def needs_moments(norm: nn.Module) -> bool:
    """Return whether `norm` normalises by moments of its input; no, where it is none or uses stored statistics."""
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return norm.training or norm.running_mean is None
    return not isinstance(norm, nn.Identity)


def affine_sign(norm: nn.Module) -> Tensor:
    """Return the sign (C,) of the factor that `norm` multiplies each channel with: 1, or −1 where negative."""
    weight = norm.weight
    assert isinstance(weight, Tensor), "norms here have affine parameters"
    if isinstance(norm, BatchChannelNorm):
        weight = weight * norm.per_channel(norm.group_weight)
    return torch.where(weight.detach() < 0, -1.0, 1.0)


def affine_from_moments(norm: nn.Module, mean: Tensor, var: Tensor, count: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return the scale and shift that `norm` would apply to a tensor of these moments.

    norm(x) = scale x + shift. In training the running statistics of a batch norm and the running estimates of
    a batch-channel norm are updated as by `norm(x)` itself.

    Args:
        norm: GroupNorm, BatchNorm1d/2d, BatchChannelNorm or Identity.
        mean, var: (B, C), mean and biased variance of each cloud's channels.
        count: the number of values behind each of them; (B,) where clouds have different numbers.

    Returns:
        scale, shift: (B, C) each.
    """
    if isinstance(norm, nn.Identity):
        return torch.ones_like(mean), torch.zeros_like(mean)
    if isinstance(norm, nn.GroupNorm):
        return _group_affine(norm.num_groups, norm.eps, norm.weight, norm.bias, mean, var)
    if isinstance(norm, nn.modules.batchnorm._BatchNorm):
        return batch_affine(norm, mean, var, count)
    assert isinstance(norm, BatchChannelNorm), f"no moments rule for {type(norm).__name__}"
    scale, shift = norm.estimate_affine()
    if norm.training:
        norm.observe(mean.detach(), var.detach(), None if isinstance(count, int) else count > 0)
    weight, bias = norm.per_channel(norm.group_weight), norm.per_channel(norm.group_bias)
    group_scale, group_shift = _group_affine(
        norm.groups, norm.eps, weight, bias, mean * scale + shift, var * scale.square()
    )
    return scale * group_scale, shift * group_scale + group_shift


def _group_affine(
    groups: int, eps: float, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> tuple[Tensor, Tensor]:
    by_group = mean.unflatten(1, (groups, -1))  # (B, G, C / G)
    group_mean = by_group.mean(2, keepdim=True)
    # Variances add up around the group's own mean; E[x²] − E[x]² would cancel.
    group_var = (var.unflatten(1, (groups, -1)) + (by_group - group_mean).square()).mean(2, keepdim=True)
    scale = weight * (group_var + eps).rsqrt().expand_as(by_group).flatten(1)
    return scale, bias - group_mean.expand_as(by_group).flatten(1) * scale
