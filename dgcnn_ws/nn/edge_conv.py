"""EdgeConv (Wang et al., https://arxiv.org/abs/1801.07829) with weight standardization, without edges.

Over the k nearest neighbours N(i) of each point i, self included:

    out_i = max_{j ∈ N(i)} act(norm(W [x_j − x_i ; x_i]))

The `reference` backend does this literally, on the edge tensor (B, 2C, N, k). The `fused` backend computes the
same function from the same parameters without it. With W = [U | V], and sign(norm) the sign of its affine factor:

    W [x_j − x_i ; x_i] = U x_j + (V − U) x_i = a_j + b_i             one product over points, not over edges
    out_i = act(scale · (b_i + max_j a_j) + shift)                    min_j where the factor is negative

since norm and act are monotone per channel; scale and shift follow from the mean and variance of a_j + b_i over
the edges, which `ops.edge_aggregate` finds in the same pass over the neighbours as the maximum.
"""

import torch
from torch import Tensor, nn

from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.norm import affine_from_moments, affine_sign, make_layer
from dgcnn_ws.nn.weight_standardization import effective_weight

BACKENDS = ("auto", "fused", "reference")


def edge_features(x: Tensor, idx: Tensor) -> Tensor:
    """Return [x_j − x_i ; x_i] for every edge: (B, C, N), (B, N, k) -> (B, 2C, N, k)."""
    B, C, N = x.shape
    k = idx.shape[2]
    neighbours = x.gather(2, idx.long().reshape(B, 1, N * k).expand(B, C, N * k)).view(B, C, N, k)
    centres = x.unsqueeze(3).expand_as(neighbours)
    return torch.cat([neighbours - centres, centres], dim=1)


def negative_slope(act: nn.Module) -> float | None:
    """Return the slope of a LeakyReLU or ReLU left of zero; None for another activation."""
    if isinstance(act, nn.LeakyReLU) and 0 <= act.negative_slope <= 1:
        return act.negative_slope
    return 0.0 if isinstance(act, nn.ReLU) else None


def check_backend(backend: str, act: nn.Module) -> None:
    """Raise InputError where there is no such backend, or where it cannot run this activation."""
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is unknown. Choose one of {', '.join(BACKENDS)}.")
    if backend == "fused" and negative_slope(act) is None:
        raise InputError(
            f"backend 'fused' cannot move the maximum in front of {type(act).__name__}. "
            "Use LeakyReLU or ReLU, or backend 'auto'."
        )


class EdgeConv(nn.Module):
    """EdgeConv block: 1×1 convolution on [x_j − x_i ; x_i], norm, activation, max over the k neighbours.

    Args:
        in_channels: C, channels of a point.
        out_channels: C', channels of a point afterwards.
        k: neighbours of a point, itself included, where the graph is built on the fly.
        norm: `ws_gn` · `gn` · `ws_bn` · `bn` · `ws_bcn` (`dgcnn_ws.nn.norm`).
        groups: groups of a group norm, lowered to a divisor of `out_channels`.
        act: activation, by default LeakyReLU(0.2).
        bias: whether the convolution has a bias.
        eps: the norm's epsilon.
        backend: `reference` builds the edge tensor; `fused` does not, and needs a LeakyReLU or ReLU; `auto` is
            `fused` where that is possible.

    Shapes:
        x: (B, C, N); idx: (B, N, k) integers, each cloud's neighbours, or None for the k nearest in x.
        Returns (B, C', N), which lies in memory as (B, N, C'): the next block takes it without a copy.

    Raises InputError for an unknown norm or backend, fewer than k points, or an index outside the cloud.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        k: int = 20,
        norm: str = "ws_gn",
        backend: str = "auto",
        *,
        groups: int = 16,
        act: nn.Module | None = None,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.k, self.backend = k, backend
        self.conv, self.norm = make_layer(
            norm, 2 * in_channels, out_channels, bias=bias, groups=groups, eps=eps, dims=2
        )
        self.act = nn.LeakyReLU(0.2) if act is None else act
        check_backend(backend, self.act)

    def extra_repr(self) -> str:
        return f"k={self.k}, backend={self.backend!r}"

    def forward(self, x: Tensor, idx: Tensor | None = None) -> Tensor:
        points = x.transpose(1, 2)  # (B, N, C)
        if idx is None:
            idx = ops.knn(points, self.k)
        else:
            ops.check_graph(idx, points.shape[0], points.shape[1])
        slope = negative_slope(self.act)
        if self.backend == "reference" or slope is None:
            return self._on_edges(x, idx)
        return self._without_edges(points, idx, slope).transpose(1, 2)

    def _on_edges(self, x: Tensor, idx: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(edge_features(x, idx)))).max(dim=3).values

    def _without_edges(self, points: Tensor, idx: Tensor, slope: float) -> Tensor:
        U, V = effective_weight(self.conv).flatten(1).chunk(2, dim=1)  # (C', C) each
        bias = self.conv.bias
        if bias is not None:
            bias = torch.cat([torch.zeros_like(bias), bias])
        ab = ops.linear(points, torch.cat([U, V - U]), bias)  # (B, N, 2C')
        extreme, mean, var = ops.edge_aggregate(ab, idx, affine_sign(self.norm))
        scale, shift = affine_from_moments(self.norm, mean, var, idx.shape[1] * idx.shape[2])
        return ops.scale_shift_act(extreme, scale, shift, slope)
