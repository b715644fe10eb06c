"""The `nn` of torch_geometric's EdgeConv read as layers, which run without edges, where it consists of such."""

from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.parameter import UninitializedParameter

from dgcnn_ws.nn.backend import negative_slope
from dgcnn_ws.nn.batch_norm import SyncBatchNorm
from dgcnn_ws.nn.weight_standardization import WSLinear

# By name, so that torch_geometric need not be there.
MLP, LINEAR, BATCH_NORM = (
    ("torch_geometric.nn.models.mlp", "MLP"),
    ("torch_geometric.nn.dense.linear", "Linear"),
    ("torch_geometric.nn.norm.batch_norm", "BatchNorm"),
)
# Whose statistics are those of all edges at once. A group or layer norm here would be of each edge by itself.
POOLING_NORMS = (nn.BatchNorm1d, SyncBatchNorm)


class NotLayers(Exception):
    """Why a network is no chain of linear layer, norm and activation: half a sentence."""


@dataclass
class EdgeLayers:
    """Linear layers, each with its norm or an Identity, and the slopes of the activations: 1 for none."""

    layers: list[tuple[Any, nn.Module]]
    slope: float  # behind every layer but the last
    last_slope: float


def read_layers(network: object, aggr: str) -> EdgeLayers:
    """Read a network of edges (E, 2C) -> (E, C') as layers. Raises NotLayers where it is none, as it is now."""
    chain: list[tuple[Any, nn.Module, float]] = []
    for part in _parts(network):
        if _kind(part) == LINEAR or type(part) in (nn.Linear, WSLinear):
            if isinstance(part.weight, UninitializedParameter):
                raise NotLayers("its first layer knows its width after the first call only")
            chain.append((part, nn.Identity(), 1.0))
            continue
        if not chain:
            raise NotLayers(f"it begins with {type(part).__name__}, not with a linear layer")
        linear, norm, slope = chain[-1]
        if (found := negative_slope(part)) is not None and slope == 1.0:
            chain[-1] = linear, norm, found
        elif type(part) in POOLING_NORMS and part.affine and isinstance(norm, nn.Identity) and slope == 1.0:
            chain[-1] = linear, part, slope
        else:
            raise NotLayers(f"{type(part).__name__} is not taken over at its place")
    if not chain:
        raise NotLayers("it has no layers")
    slopes = {slope for *_, slope in chain[:-1]} or {chain[-1][2]}
    last_slope = chain[-1][2]
    if len(slopes) > 1:
        raise NotLayers("its activations differ")
    (slope,) = slopes
    if aggr != "max" and len(chain) > 1 and last_slope not in (slope, 1.0):
        raise NotLayers("its activations differ")
    return EdgeLayers([(linear, norm) for linear, norm, _ in chain], slope, last_slope)


def _kind(module: object) -> tuple[str, str]:
    return type(module).__module__, type(module).__qualname__


def _parts(network: Any) -> list[nn.Module]:
    """Return what a network applies, one after another; nothing for what does nothing."""
    if not isinstance(network, nn.Module):
        raise NotLayers(f"{type(network).__name__} is no torch module")
    if network._forward_hooks or network._forward_pre_hooks:
        raise NotLayers(f"{type(network).__name__} has hooks")
    if type(network) is nn.Sequential:
        return [part for child in network for part in _parts(child)]
    if _kind(network) == MLP:
        return _parts_of_mlp(network)
    if _kind(network) == BATCH_NORM and not network.allow_single_element:
        return _parts(network.module)
    if isinstance(network, nn.Identity) or (isinstance(network, nn.Dropout) and not (network.training and network.p)):
        return []
    return [network]


def _parts_of_mlp(mlp: Any) -> list[nn.Module]:
    parts = []
    for depth, linear in enumerate(mlp.lins):
        parts += _parts(linear)
        if depth < len(mlp.norms):
            behind = [mlp.norms[depth], *([] if mlp.act is None else [mlp.act])]
            for part in reversed(behind) if mlp.act_first else behind:
                parts += _parts(part)
        if mlp.training and mlp.dropout[depth]:
            raise NotLayers("dropout on edges is not taken over")
    return parts
