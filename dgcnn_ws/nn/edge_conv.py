"""EdgeConv (Wang et al., https://arxiv.org/abs/1801.07829) with weight standardization, without edges.

Over the k nearest neighbours N(i) of each point i, self included:

    out_i = max_{j ∈ N(i)} act(norm(W [x_j − x_i ; x_i]))

The `reference` backend does this literally, on the edge tensor (B, 2C, N, k). The `fused` backend computes the
same function from the same parameters without it. With W = [U | V], and sign(norm) the sign of its affine factor:

    W [x_j − x_i ; x_i] = U x_j + (V − U) x_i = a_j + b_i             one product over points, not over edges
    out_i = act(scale · (b_i + max_j a_j) + shift)                    min_j where the factor is negative

since norm and act are monotone per channel; scale and shift follow from the mean and variance of a_j + b_i over
the edges, which `ops.edge_aggregate` finds in the same pass over the neighbours as the maximum.

Only the first convolution of a block factors like this. What follows it, and a mean in the maximum's place, is
computed on the edges of a few points at a time, and once more in the backward pass: no edge is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.backend import check_backend, negative_slope
from dgcnn_ws.nn.norm import Layer, affine_from_moments, affine_sign, make_layer, needs_moments
from dgcnn_ws.nn.weight_standardization import effective_weight

AGGREGATIONS = ("max", "mean", "add")


def edge_features(x: Tensor, idx: Tensor) -> Tensor:
    """Return [x_j − x_i ; x_i] for every edge: (B, C, N), (B, N, k) -> (B, 2C, N, k)."""
    B, C, N = x.shape
    k = idx.shape[2]
    neighbours = x.gather(2, idx.long().reshape(B, 1, N * k).expand(B, C, N * k)).view(B, C, N, k)
    centres = x.unsqueeze(3).expand_as(neighbours)
    return torch.cat([neighbours - centres, centres], dim=1)


@dataclass
class EdgeGroup:
    """Clouds of one size on their way through a block: first layer's terms, graph, and a scale and shift a layer."""

    ab: Tensor  # (B, N, 2C)
    idx: Tensor  # (B, N, k)
    scales: list[Tensor] = field(default_factory=list)  # (B, C) each
    shifts: list[Tensor] = field(default_factory=list)


class EdgeBlock(nn.Module):
    """The parameters and the two backends of an EdgeConv, whatever its clouds and graphs come as."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int | Sequence[int],
        norm: str | None,
        backend: str,
        *,
        aggr: str,
        groups: int,
        act: nn.Module | None,
        bias: bool,
        eps: float,
    ) -> None:
        super().__init__()
        widths = [out_channels] if isinstance(out_channels, int) else list(out_channels)
        if not widths:
            raise InputError("out_channels is empty; name the channels of at least one convolution.")
        if aggr not in AGGREGATIONS:
            raise InputError(f"aggr {aggr!r} is unknown. Choose one of {', '.join(AGGREGATIONS)}.")
        self.backend, self.aggr = backend, aggr
        self.conv, self.norm = make_layer(norm, 2 * in_channels, widths[0], bias=bias, groups=groups, eps=eps, dims=2)
        self.act = nn.LeakyReLU(0.2) if act is None else act
        check_backend(backend, self.act)
        self.deeper = nn.ModuleList()
        for c_in, c_out in pairwise(widths):
            conv, layer_norm = make_layer(norm, c_in, c_out, bias=bias, groups=groups, eps=eps, dims=2)
            self.deeper.append(nn.ModuleDict({"conv": conv, "norm": layer_norm}))

    def extra_repr(self) -> str:
        return f"aggr={self.aggr!r}, backend={self.backend!r}"

    def layers(self) -> list[tuple[Layer, nn.Module]]:
        """Return the block's convolutions, each with its norm."""
        deeper = [(cast(nn.ModuleDict, layer)["conv"], cast(nn.ModuleDict, layer)["norm"]) for layer in self.deeper]
        return [(self.conv, self.norm), *cast(list[tuple[Layer, nn.Module]], deeper)]

    def on_edges(self, edges: Tensor) -> Tensor:
        """Run the block literally: (B, 2C, N, k) -> (B, C', N)."""
        for conv, norm in self.layers():
            edges = self.act(norm(conv(edges)))
        if self.aggr == "max":
            return edges.max(dim=3).values
        return edges.mean(dim=3) if self.aggr == "mean" else edges.sum(dim=3)

    def terms(self, points: Tensor) -> Tensor:
        """Return [a ; b], what j and what i add to the first convolution: (..., C) -> (..., 2C')."""
        U, V = effective_weight(self.conv).flatten(1).chunk(2, dim=1)  # (C', C) each
        bias = self.conv.bias
        if bias is not None:
            bias = torch.cat([torch.zeros_like(bias), bias])
        return ops.linear(points, torch.cat([U, V - U]), bias)

    def without_edges(self, groups: list[EdgeGroup], slope: float, last_slope: float | None = None) -> list[Tensor]:
        """Compute the same of `terms`, without the edge tensor: (B, N, C') for each group.

        Statistics of a norm that pools clouds are taken over all groups. `slope` is the activation's, left of zero;
        `last_slope` that of the last layer, where it is another: 1 for none.
        """
        layers = self.layers()
        last_slope = slope if last_slope is None else last_slope
        biased = any(conv.bias is not None for conv, _ in layers[1:])
        weights: list[Tensor] = []
        biases: list[Tensor] = []
        extremes: list[Tensor] = []
        for depth, (conv, norm) in enumerate(layers):
            if depth > 0:
                weights.append(effective_weight(conv).flatten(1))
                if biased:
                    biases.append(weights[-1].new_zeros(len(weights[-1])) if conv.bias is None else conv.bias)
            wants_extreme = self.aggr == "max" and depth == len(layers) - 1
            if wants_extreme or needs_moments(norm):
                sign = (
                    torch.ones_like(conv.weight.flatten(1)[:, 0])
                    if isinstance(norm, nn.Identity)
                    else affine_sign(norm)
                )
                extremes, mean, var = _aggregate(groups, weights, biases, slope, sign)
            else:
                mean = var = conv.weight.new_zeros(sum(g.idx.shape[0] for g in groups), len(conv.weight))
            scale, shift = affine_from_moments(norm, mean, var, _edges_per_cloud(groups))
            clouds = [g.idx.shape[0] for g in groups]
            for g, group_scale, group_shift in zip(groups, _split(scale, clouds), _split(shift, clouds), strict=True):
                g.scales.append(group_scale)
                g.shifts.append(group_shift)
        if self.aggr == "max":
            return [
                ops.scale_shift_act(extreme, g.scales[-1], g.shifts[-1], last_slope)
                for extreme, g in zip(extremes, groups, strict=True)
            ]
        means = [_mean(g, weights, biases, slope, last_slope) for g in groups]
        return means if self.aggr == "mean" else [out * g.idx.shape[2] for out, g in zip(means, groups, strict=True)]


def _mean(g: EdgeGroup, weights: list[Tensor], biases: list[Tensor], slope: float, last_slope: float) -> Tensor:
    """Return the mean over the edges of the last layer's output (B, N, C')."""
    if not weights or last_slope == slope:
        return ops.edges_mean(g.ab, g.idx, ops.Layers(g.scales, g.shifts, weights, biases, last_slope))
    # The last layer is affine, and the mean moves in front of it.
    assert last_slope == 1, "an activation of another slope behind the last layer alone"
    inner = ops.Layers(g.scales[:-1], g.shifts[:-1], weights[:-1], biases[:-1], slope)
    mean = ops.edges_mean(g.ab, g.idx, inner)
    y = ops.linear(mean, weights[-1].to(mean.dtype), biases[-1].to(mean.dtype) if biases else None)
    return ops.scale_shift_act(y, g.scales[-1], g.shifts[-1], last_slope)


def _aggregate(
    groups: list[EdgeGroup], weights: list[Tensor], biases: list[Tensor], slope: float, sign: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return each group's extremes (B, N, C), and the moments (clouds, C) of all, behind the layers so far."""
    results = [
        ops.layers_aggregate(g.ab, g.idx, ops.Layers(g.scales, g.shifts, weights, biases, slope), sign) for g in groups
    ]
    extremes, means, variances = (list(parts) for parts in zip(*results, strict=True))
    return extremes, _join(means), _join(variances)


def _split(x: Tensor, sizes: list[int]) -> Sequence[Tensor]:
    return [x] if len(sizes) == 1 else x.split(sizes)  # one part needs no copy in the backward pass


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _edges_per_cloud(groups: list[EdgeGroup]) -> int | Tensor:
    if len(groups) == 1:
        return groups[0].idx.shape[1] * groups[0].idx.shape[2]
    counts = [g.idx.shape[1] * g.idx.shape[2] for g in groups for _ in range(g.idx.shape[0])]
    return torch.tensor(counts, device=groups[0].idx.device)


class EdgeConv(EdgeBlock):
    """EdgeConv block: 1×1 convolution on [x_j − x_i ; x_i], norm, activation, max over the k neighbours.

    With several convolutions, each is followed by its norm and the activation, and the maximum comes last.

    Args:
        in_channels: C, channels of a point.
        out_channels: C', channels of a point afterwards; or those of each convolution in the block, the last one C'.
        k: neighbours of a point, itself included, where the graph is built on the fly.
        norm: `ws_gn` · `gn` · `ws_bn` · `bn` · `ws_bcn` (`dgcnn_ws.nn.norm`), or None.
        backend: `reference` builds the edge tensor; `fused` does not, and needs a LeakyReLU or ReLU; `auto` is
            `fused` where that is possible.
        dilation: d takes every d-th of the nearest neighbours (https://arxiv.org/abs/1904.03751).
        aggr: `max`, `mean` or `add` over the neighbours.
        groups: groups of a group norm, lowered to a divisor of the channels.
        act: activation, by default LeakyReLU(0.2).
        bias: whether the convolutions have a bias.
        eps: the norm's epsilon.

    Shapes:
        x: (B, C, N); idx: (B, N, k) integers, each cloud's neighbours, any k; pos: (B, D, N), coordinates that
            the graph is built on, in place of x. Without idx and pos: the k nearest in x.
        Returns (B, C', N), which lies in memory as (B, N, C'): the next block takes it without a copy.

    Raises InputError for an unknown norm, backend or aggr, x of another shape or type, too few points for k and
    dilation, an index outside the cloud, or both idx and pos.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | Sequence[int],
        k: int = 20,
        norm: str | None = "ws_gn",
        backend: str = "auto",
        *,
        dilation: int = 1,
        aggr: str = "max",
        groups: int = 16,
        act: nn.Module | None = None,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(
            in_channels, out_channels, norm, backend, aggr=aggr, groups=groups, act=act, bias=bias, eps=eps
        )
        if k < 1 or dilation < 1:
            raise InputError(f"k={k} and dilation={dilation} must be at least 1.")
        self.k, self.dilation = k, dilation

    def extra_repr(self) -> str:
        return f"k={self.k}, dilation={self.dilation}, {super().extra_repr()}"

    def forward(self, x: Tensor, idx: Tensor | None = None, pos: Tensor | None = None) -> Tensor:
        self._check(x)
        points = x.transpose(1, 2)  # (B, N, C)
        if idx is None:
            idx = ops.knn(points if pos is None else self._coordinates(x, pos), self.k, self.dilation)
        elif pos is not None:
            raise InputError("idx and pos both say what the graph is; give one of them.")
        else:
            ops.check_graph(idx, points.shape[0], points.shape[1])
        slope = negative_slope(self.act)
        if self.backend == "reference" or slope is None:
            return self.on_edges(edge_features(x, idx))
        (out,) = self.without_edges([EdgeGroup(self.terms(points), idx)], slope)
        return out.transpose(1, 2)

    def _check(self, x: Tensor) -> None:
        channels = self.conv.weight.shape[1] // 2
        if x.dim() != 3 or x.shape[1] != channels:
            turned = " Points come last here: transpose it." if x.dim() == 3 and x.shape[2] == channels else ""
            raise InputError(f"x is (B, {channels}, N) for this layer; this one has shape {tuple(x.shape)}.{turned}")
        ops.check_types(x, self.conv.weight)

    def _coordinates(self, x: Tensor, pos: Tensor) -> Tensor:
        if pos.dim() != 3 or pos.shape[0] != x.shape[0] or pos.shape[2] != x.shape[2]:
            raise InputError(f"pos {tuple(pos.shape)} and x {tuple(x.shape)} differ in clouds or points.")
        return pos.transpose(1, 2)
