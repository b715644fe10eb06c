"""Weights of the public PyTorch DGCNN classifiers, renamed into those of `DGCNN(norm="bn", head_norm="bn")`.

Those networks and ours compute the same function: convolutions on [x_j − x_i ; x_i], batch norms of eps 1e-5,
LeakyReLU 0.2, maximum beside mean. Only names differ, and there each norm is stored twice.
"""

from typing import Any

import torch
from torch import Tensor

from dgcnn_ws.errors import InputError

# Our names of a public layer and of the norm that follows it, which goes by either of two names there.
_LAYERS = {f"conv{i + 1}.0": f"edge_convs.{i}.conv" for i in range(4)} | {
    "conv5.0": "global_feature.conv",
    "linear1": "head.layers.0",
    "linear2": "head.layers.4",
    "linear3": "head.layers.8",
}
_NORMS = {f"bn{i + 1}": f"edge_convs.{i}.norm" for i in range(4)} | {
    "bn5": "global_feature.norm",
    "bn6": "head.layers.1",
    "bn7": "head.layers.5",
}
_TWINS = {f"conv{i}.1": f"bn{i}" for i in range(1, 6)}
_FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def translate(state: Any) -> dict[str, Tensor]:
    """Return a public network's state dict under our names.

    Raises InputError, in one sentence, where it is none, has a name that the public networks do not have, or stores
    a norm twice with different values.
    """
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError("it holds no state dict, but something else.")
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, _, field = name.removeprefix("module.").rpartition(".")
        layer = _TWINS.get(layer, layer)
        target = _LAYERS.get(layer) if layer in _LAYERS else _NORMS.get(layer)
        if target is None or field not in _FIELDS or not isinstance(value, Tensor):
            raise InputError(f"{name!r} is no name in the public DGCNN classifiers: it is of another network.")
        target = f"{target}.{field}"
        if target in ours and not torch.equal(ours[target], value):
            raise InputError(f"{name!r} differs from its twin: each norm is stored twice, with the same values.")
        ours[target] = value
    for norm in _NORMS.values():  # counted since torch 0.4.1 only, and read by nothing in evaluation
        ours.setdefault(f"{norm}.num_batches_tracked", torch.zeros((), dtype=torch.long))
    return ours


def sizes(ours: dict[str, Tensor]) -> tuple[int, int]:
    """Return `emb_dims` and the number of classes of a translated state dict. Raises InputError where they lack."""
    found = []
    for name in ("global_feature.conv.weight", "head.layers.8.weight"):
        if name not in ours or ours[name].ndim < 2 or len(ours[name]) < 1:
            raise InputError("its last convolution (conv5) or last linear layer (linear3) is missing or misshapen.")
        found.append(len(ours[name]))
    return found[0], found[1]
