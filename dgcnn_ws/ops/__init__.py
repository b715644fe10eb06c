"""Neighbour search and edge aggregation as tensor functions; features are (B, N, C), points before channels.

Each runs compiled kernels where there are some (Numba on the CPU, Triton on CUDA) and plain torch elsewhere. First
derivatives in reverse mode are kernels too; those beyond, forward mode and `torch.func` go through plain torch on the
edge tensor (`literal`, `reference`).
"""

import torch
from torch import Tensor

from dgcnn_ws.errors import InputError
from dgcnn_ws.ops import literal, on_edges, operators, reference
from dgcnn_ws.ops.checks import (
    check_affine,
    check_edges,
    check_idx,
    check_layers,
    check_points,
    check_types,
    takes_maximum,
)
from dgcnn_ws.ops.layers import Layers
from dgcnn_ws.ops.operators import kernels
from dgcnn_ws.ops.product import linear

__all__ = [
    "Layers",
    "PooledPoints",
    "check_graph",
    "check_types",
    "column_moments",
    "edge_aggregate",
    "edges_mean",
    "kernels",
    "knn",
    "layers_aggregate",
    "linear",
    "mean_act",
    "scale_shift_act",
]


def knn(x: Tensor, k: int, dilation: int = 1) -> Tensor:
    """Find the k nearest neighbours of each point within its cloud, itself included.

    With a dilation d, every d-th of them by distance: the point itself and its neighbours of rank d, 2d ... (k - 1) d.

    Distances are Euclidean, in float32 (float64 for float64) whatever autocast says; memory is linear in N.
    The order of the k neighbours and the choice among equal distances are unspecified. Not differentiable.

    Args:
        x: (B, N, C) points or features, floating.
        k: neighbours per point, 1 <= k.
        dilation: d >= 1; (k - 1) d + 1 <= N.

    Returns:
        idx (B, N, k) int64, k distinct point numbers in 0..N-1 for each point.

    Raises:
        InputError: x is not a floating (B, N, C) tensor, k or dilation is below 1, or N is too small for them.
    """
    check_points(x, "x")
    for name, value in (("k", k), ("dilation", dilation)):
        if value < 1:
            raise InputError(f"{name}={value} neighbours make no graph; {name} is at least 1.")
    nearest = (k - 1) * dilation + 1
    if nearest > x.shape[1]:
        spread = f" at dilation {dilation}" if dilation > 1 else ""
        raise InputError(
            f"k={k} neighbours{spread} need at least {nearest} points; this cloud has {x.shape[1]}. "
            "Lower k or use more points."
        )
    idx = operators.knn(x.detach(), nearest)
    return idx if dilation == 1 else operators.dilate(x.detach(), idx, dilation)


def check_graph(idx: Tensor, batch_size: int, num_points: int) -> None:
    """Check a neighbour graph that came from outside.

    Args:
        idx: (B, N, k) point numbers, int64 or int32.
        batch_size, num_points: B and N of the clouds that idx points into.

    Raises:
        InputError: idx has another shape or type, or holds a number outside 0..num_points-1.
        RuntimeError: the latter, when a network runs that torch.compile or torch.export made.
    """
    check_idx(idx)
    if idx.shape[:2] != (batch_size, num_points):
        raise InputError(
            f"The graph idx is for {idx.shape[0]} clouds of {idx.shape[1]} points; it is used with {batch_size} of "
            f"{num_points}."
        )
    if torch.compiler.is_compiling():  # the values are not there yet; the check goes into the graph
        inside = ((idx >= 0) & (idx < num_points)).all()
        torch._assert_async(inside, "The graph idx points outside the cloud.")
    elif idx.numel():
        low, high = (int(bound) for bound in idx.aminmax())
        if low < 0 or high >= num_points:
            raise InputError(
                f"The graph idx points to {low if low < 0 else high}; the points of a cloud are numbered "
                f"0 to {num_points - 1}."
            )


def edge_aggregate(ab: Tensor, idx: Tensor, sign: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take extremes over the neighbours, and the moments, of edge features y_ij that are never stored.

        y_ij = a_j + b_i

        extreme_i = b_i + max_{j in N(i)} a_j  where sign > 0, the minimum elsewhere
        mean, var = mean and biased variance of y_ij over all N k edges of a cloud, per channel

    Differentiable in ab through all three.

    Args:
        ab: (B, N, 2C) neighbour term a in the first C channels, centre term b in the last.
        idx: (B, N, k) neighbours, int64 or int32, in 0..N-1 (unchecked: see `check_graph`).
        sign: (C,) number, above 0 for the maximum; or bool, true for the maximum.

    Returns:
        extreme (B, N, C) in ab's type; mean and var (B, C) in float32 (float64 for float64).

    Raises:
        InputError: shapes, types or devices do not fit together.
    """
    check_edges(ab, idx)
    run = reference.edge_aggregate if literal.transformed() else operators.edge_aggregate
    extreme, _, mean, var = run(ab, idx, takes_maximum(sign, ab, ab.shape[2] // 2))
    return extreme, mean, var


def layers_aggregate(ab: Tensor, idx: Tensor, layers: Layers, sign: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take extremes over the neighbours, and the moments, of edge features behind m further layers.

        y_1,ij = a_j + b_i,    y_{l+1} = weight_l leaky_relu(scale_l y_l + shift_l) + bias_l,    l = 1..m

    As `edge_aggregate`, which is m = 0, of y_{m+1} instead of y_1. Edges are computed a block of points at a time,
    and anew in the backward pass: none is kept. Differentiable in all but idx and sign.

    Args:
        ab: (B, N, 2 C_1) and idx: (B, N, k), as for `edge_aggregate`.
        layers: the m further ones.
        sign: (C_{m+1},) number, above 0 for the maximum; or bool, true for the maximum.

    Returns:
        extreme (B, N, C_{m+1}) in ab's type; mean and var (B, C_{m+1}) in float32 (float64 for float64).

    Raises:
        InputError: shapes, types or devices do not fit together, or the slope is outside [0, 1].
    """
    check_layers(ab, idx, layers, last_is_affine=False)
    if not layers.weights:
        return edge_aggregate(ab, idx, sign)
    use_max = takes_maximum(sign, ab, len(layers.weights[-1]))
    if literal.transformed():
        return literal.layers_aggregate(ab, idx, layers, use_max)
    extreme, _, mean, var = on_edges.layers_aggregate(ab, idx, *layers.lists(), layers.slope, use_max)
    return extreme, mean, var


def edges_mean(ab: Tensor, idx: Tensor, layers: Layers) -> Tensor:
    """Return the mean over the neighbours of leaky_relu(scale_{m+1} y_{m+1} + shift_{m+1}), no edge kept.

    y as in `layers_aggregate`, whose layers have one scale and one shift less; m = 0 is the mean of the activated
    a_j + b_i.

    Returns:
        (B, N, C_{m+1}) in ab's type.

    Raises:
        InputError: shapes, types or devices do not fit together, or the slope is outside [0, 1].
    """
    check_layers(ab, idx, layers, last_is_affine=True)
    if literal.transformed():
        return literal.edges_mean(ab, idx, layers)
    return on_edges.edges_mean(ab, idx, *layers.lists(), layers.slope)


def scale_shift_act(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return leaky_relu(scale * x + shift), with one scale and one shift per cloud and channel.

    Differentiable in x, scale and shift; keeps x alone for the backward pass.

    Args:
        x: (B, N, C) features.
        scale: (B, C).
        shift: (B, C).
        negative_slope: of the leaky ReLU, in [0, 1].

    Returns:
        (B, N, C) in x's type.

    Raises:
        InputError: shapes, types or devices do not fit together, or negative_slope is outside [0, 1].
    """
    check_affine(x, scale, shift, negative_slope)
    run = reference.scale_shift_act if literal.transformed() else operators.scale_shift_act
    return run(x, scale, shift, negative_slope)


def column_moments(y: Tensor, sign: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take the extreme, the mean and the biased variance over the points of each cloud, per channel.

    Differentiable in y through all three.

    Args:
        y: (B, N, C) features.
        sign: (C,) number, above 0 for the maximum, the minimum elsewhere; or bool, true for the maximum.

    Returns:
        extreme (B, C) in y's type; mean and var (B, C) in float32 (float64 for float64).

    Raises:
        InputError: shapes, types or devices do not fit together.
    """
    check_points(y, "y")
    run = reference.column_moments if literal.transformed() else operators.column_moments
    extreme, _, mean, var, *_ = run(y, takes_maximum(sign, y, y.shape[2]))
    return extreme, mean, var


class PooledPoints:
    """`column_moments` of y (B, N, C) and, once a norm has made scale and shift of them, the mean of the activated y.

    The same as `column_moments` and `mean_act` one after the other, but their gradients are one pass over y.

    Attributes: extreme, mean, var, as `column_moments` returns them.
    """

    def __init__(self, y: Tensor, sign: Tensor) -> None:
        check_points(y, "y")
        run = reference.column_moments if literal.transformed() else operators.column_moments
        self.extreme: Tensor
        self.mean: Tensor
        self.var: Tensor
        self.extreme, _, self.mean, self.var, *link = run(y, takes_maximum(sign, y, y.shape[2]))
        self._y, self._link = y, link[0] if link and link[0].numel() else None

    def mean_act(self, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
        """Return `dgcnn_ws.ops.mean_act` of y; once, if it is to be differentiated."""
        if self._link is None:
            return mean_act(self._y, scale, shift, negative_slope)
        check_affine(self._y, scale, shift, negative_slope)
        return operators.mean_act(self._y, scale, shift, negative_slope, self._link)[0]


def mean_act(y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return the mean over the points of leaky_relu(scale * y + shift), without storing that tensor.

    Differentiable in y, scale and shift; keeps y alone for the backward pass.

    Args:
        y: (B, N, C) features.
        scale: (B, C).
        shift: (B, C).
        negative_slope: of the leaky ReLU, in [0, 1].

    Returns:
        (B, C), at least float32: of half the digits of y, what clouds differ by would not be left of a mean that they
        share.

    Raises:
        InputError: shapes, types or devices do not fit together, or negative_slope is outside [0, 1].
    """
    check_affine(y, scale, shift, negative_slope)
    if literal.transformed():
        return reference.mean_act(y, scale, shift, negative_slope)
    return operators.mean_act(y, scale, shift, negative_slope)[0]
