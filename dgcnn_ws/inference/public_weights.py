"""Weights of the public PyTorch DGCNN classifiers, renamed into those of `DGCNN(norm="bn", head_norm="bn")`.

Those networks and ours compute the same function: convolutions on [x_j − x_i ; x_i], batch norms of eps 1e-5,
LeakyReLU 0.2, maximum beside mean. What differs:

- the public networks (files ending in .t7) store each norm twice;
- torch-pointcloud's (0.0.18, `dgcnn.modelnet40-1024.an-tao`) take [x_i ; x_j − x_i], torch_geometric's order, so the
  two halves of an EdgeConv's columns change places; its layers are linear ones; and each has a bias, which the norm
  behind it takes off again: norm(y + b) with running mean μ is norm(y) with μ − b.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.state_dicts import find_state_dict, without_prefix

# Our layers and the norms that follow them.
_EDGE_CONVS = [f"edge_convs.{i}.conv" for i in range(4)]
_NORM_OF = {f"edge_convs.{i}.conv": f"edge_convs.{i}.norm" for i in range(4)} | {
    "global_feature.conv": "global_feature.norm",
    "head.layers.0": "head.layers.1",
    "head.layers.4": "head.layers.5",
}
_WITHOUT_BIAS = (*_EDGE_CONVS, "global_feature.conv", "head.layers.0")
_FIELDS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Naming:
    """Another program's names, and what else differs.

    Args:
        first: a name that each of its state dicts has.
        layers: its layers' and norms' names, and ours.
        weight: makes our weight of a layer, by our name, of its.
    """

    first: str
    layers: dict[str, str]
    weight: Callable[[str, Tensor], Tensor] = lambda _, weight: weight


def _public_layers() -> dict[str, str]:
    layers = {"linear1": "head.layers.0", "linear2": "head.layers.4", "linear3": "head.layers.8"}
    for i, layer in enumerate([*_EDGE_CONVS, "global_feature.conv"], start=1):
        layers |= {f"conv{i}.0": layer, f"conv{i}.1": _NORM_OF[layer], f"bn{i}": _NORM_OF[layer]}
    return layers | {"bn6": "head.layers.1", "bn7": "head.layers.5"}


def _torch_pointcloud_layers() -> dict[str, str]:
    lins = {f"encoder.blocks.{i}.conv.nn.lins.0": layer for i, layer in enumerate(_EDGE_CONVS)}
    lins |= {"proj.lins.0": "global_feature.conv", "head.lins.0": "head.layers.0", "head.lins.1": "head.layers.4"}
    layers = lins | {"head.lins.2": "head.layers.8"}
    for lin, layer in lins.items():
        norm = lin.replace("lins", "norms")
        layers |= {norm: _NORM_OF[layer], f"{norm}.module": _NORM_OF[layer]}
    return layers


def _from_linear(layer: str, weight: Tensor) -> Tensor:
    """Return a convolution's weight of a linear layer's (C', C); an EdgeConv's columns [x_i ; x_j − x_i] turned."""
    if layer in _EDGE_CONVS and weight.ndim == 2:
        weight = torch.cat([*reversed(weight.chunk(2, dim=1))], dim=1)
        return weight[:, :, None, None]
    return weight[..., None] if layer == "global_feature.conv" else weight


NAMINGS = (
    Naming("conv1.0.weight", _public_layers()),
    Naming("encoder.blocks.0.conv.nn.lins.0.weight", _torch_pointcloud_layers(), _from_linear),
)


def find_network(content: Any) -> tuple[Naming, dict[str, Tensor], list[str]]:
    """Return whose names a file's content has, the network's state dict under them, and what lay beside the network.

    Args:
        content: a state dict, or what trainers wrap one in (`find_state_dict`, `without_prefix`).

    Raises InputError, in one sentence, where there is no state dict, or one of this program.
    """
    whole = find_state_dict(content)
    if any(name.endswith("edge_convs.0.conv.weight") for name in whole):
        raise InputError(
            "its names are this program's own. evaluate, predict and export take its checkpoints as they are, and "
            "load_state_dict its state dicts."
        )
    naming = next((n for n in NAMINGS if any(f".{name}".endswith(f".{n.first}") for name in whole)), NAMINGS[0])
    return naming, *without_prefix(whole, naming.first)


def translate(content: Any) -> dict[str, Tensor]:
    """Return a public network's state dict under our names.

    Args:
        content: as for `find_network`.

    Raises InputError, in one sentence, where it is none, has a name that the public networks do not have, or stores
    a norm twice with different values.
    """
    naming, state, _ = find_network(content)
    ours: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    for name, value in state.items():
        layer, _, field = name.rpartition(".")
        target = naming.layers.get(layer)
        if target is None or field not in _FIELDS or not isinstance(value, Tensor):
            raise InputError(f"{name!r} is no name in the public DGCNN classifiers: it is of another network.")
        if field == "bias" and target in _WITHOUT_BIAS:
            biases[_NORM_OF[target]] = value
            continue
        if field == "weight":
            value = naming.weight(target, value)
        target = f"{target}.{field}"
        if target in ours and not torch.equal(ours[target], value):
            raise InputError(f"{name!r} differs from its twin: each norm is stored twice, with the same values.")
        ours[target] = value
    for norm, bias in biases.items():
        mean = ours.get(f"{norm}.running_mean")
        if mean is None or mean.shape != bias.shape:
            raise InputError(f"the bias in front of the norm {norm} has no running mean of its size: it is damaged.")
        ours[f"{norm}.running_mean"] = mean - bias
    for norm in _NORM_OF.values():  # counted since torch 0.4.1 only, and read by nothing in evaluation
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
