"""The layered operators written literally on the whole edge tensor (B, N, k, C), for derivatives beyond the first.

Everything here is torch's own operations, which autograd, `torch.func` and forward mode differentiate as often as
they are asked: in memory of every edge and layer, where the operators keep a row a point. `reference` is the same of
the operators without layers.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from dgcnn_ws.ops.layers import Layers
from dgcnn_ws.ops.reference import compute_dtype


def transformed() -> bool:
    """Return whether `torch.func` or forward mode is at work: neither knows derivatives of custom operators."""
    return forward_ad._current_level >= 0 or torch._C._are_functorch_transforms_active()


def _activated(y: Tensor, scale: Tensor, shift: Tensor, slope: float) -> Tensor:
    return F.leaky_relu(y * scale[:, None, None].to(y.dtype) + shift[:, None, None].to(y.dtype), slope)


def _edges(ab: Tensor, idx: Tensor, layers: Layers) -> Tensor:
    """Return y_{m+1} (B, N, k, C) of m layers."""
    scales, shifts, weights, biases, slope = layers
    a, b = ab.to(compute_dtype(ab)).chunk(2, dim=-1)
    rows = idx.long().flatten(1).unsqueeze(-1).expand(-1, -1, a.shape[-1])
    y = a.gather(1, rows).unflatten(1, idx.shape[1:]) + b.unsqueeze(2)
    for layer, weight in enumerate(weights):
        z = _activated(y, scales[layer], shifts[layer], slope).to(ab.dtype)
        y = F.linear(z, weight.to(ab.dtype), biases[layer].to(ab.dtype) if biases else None).to(y.dtype)
    return y


def layers_aggregate(
    ab: Tensor, idx: Tensor, layers: Layers, use_max: Tensor | None = None, *, arg: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return extreme (B, N, C), mean, var (B, C): see `dgcnn_ws.ops.layers_aggregate`.

    `arg` (B, N, C), in place of `use_max`, says which neighbour each extreme is, as the operator found it.
    """
    y = _edges(ab, idx, layers)
    if arg is None:
        assert use_max is not None
        arg = torch.where(use_max, y.argmax(2), y.argmin(2))
    mean = y.mean((1, 2))
    var = (y - mean[:, None, None]).square().mean((1, 2))
    return y.gather(2, arg.long().unsqueeze(2)).squeeze(2).to(ab.dtype), mean, var


def edges_mean(ab: Tensor, idx: Tensor, layers: Layers) -> Tensor:
    """Return the mean (B, N, C) over the neighbours of z_{m+1}: see `dgcnn_ws.ops.edges_mean`."""
    y = _edges(ab, idx, layers)
    return _activated(y, layers.scales[-1], layers.shifts[-1], layers.slope).mean(2).to(ab.dtype)


def gradients(
    ab: Tensor, layers: Layers, outputs: Sequence[Tensor], g_outputs: Sequence[Tensor | None]
) -> tuple[Any, ...]:
    """Return the gradients of ab, scales, shifts, weights and biases, themselves differentiable.

    Args:
        ab, layers: as given to the functions above.
        outputs, g_outputs: what came of them, and its gradients; None for zero.
    """
    lists = layers.lists()
    flat = [ab, *(tensor for tensors in lists for tensor in tensors)]
    wanted = [tensor for tensor in flat if tensor.requires_grad]
    pairs = [(out, g) for out, g in zip(outputs, g_outputs, strict=True) if g is not None and out.requires_grad]
    outs, gs = zip(*pairs, strict=True) if pairs else ((), ())
    found = iter(torch.autograd.grad(outs, wanted, gs, create_graph=True, allow_unused=True))
    every = iter([next(found) if tensor.requires_grad else None for tensor in flat])
    return next(every), *([next(every) for _ in tensors] for tensors in lists)
