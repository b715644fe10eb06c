"""What reads a layer's output: a norm, or something else. Traced by torch.fx where a module can be traced."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from dgcnn_ws.nn.norm import RunningEstimates

LAYERS = (nn.modules.conv._ConvNd, nn.Linear)
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, RunningEstimates)
NORM_FUNCTIONS = {F.batch_norm, F.group_norm, F.instance_norm, F.layer_norm, torch.batch_norm, torch.group_norm}

# What keeps a factor and a term of a channel a factor and a term of that channel: the norm behind it removes them.
_POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE_POOLS = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)
_SHAPES = (nn.Identity, nn.Flatten, nn.Unflatten, nn.Upsample, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
TRANSPARENT_MODULES = (*_POOLS, *_ADAPTIVE_POOLS, *_SHAPES)
TRANSPARENT_NAMES = {
    *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"),
    *("transpose", "permute", "movedim", "swapaxes", "contiguous", "to", "float", "double", "half"),
    *("cat", "concat", "dropout", "interpolate"),
    *("max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d"),
}
METADATA = {"getattr", "size", "dim", "numel"}  # reads no values


Names = dict[nn.Module, str]


@dataclass(frozen=True)
class Follower:
    """Whether a norm, and only norms, read a layer's output, and how that is known."""

    is_norm: bool
    why: str


def find_followers(model: nn.Module) -> dict[nn.Module, Follower]:
    """Return what follows each convolution and linear layer of a model."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()  # with the branches that only training takes
    names = {module: name for name, module in model.named_modules()}
    found: dict[nn.Module, Follower] = {}
    try:
        _visit(model, names, found)
    finally:
        for module, training in modes:
            module.training = training
    for module in model.modules():
        if isinstance(module, LAYERS):
            found.setdefault(module, Follower(False, "nothing that could be traced calls it"))
    return found


def _visit(module: nn.Module, names: Names, found: dict[nn.Module, Follower]) -> bool:
    """Fill in the followers within a module; return whether it could be traced."""
    try:
        found |= _traced(module, names, set())
        return True
    except Exception as error:  # whatever a forward method may raise on symbols in place of tensors
        why = type(error).__name__
    # A part that cannot be traced is a closed box for the rest.
    opaque = {child for child in module.children() if not _is_leaf(child) and not _visit(child, names, found)}
    try:
        found |= _traced(module, names, opaque)
    except Exception:
        found |= _registered(module, why)
        return False
    return True


def _is_leaf(module: nn.Module) -> bool:
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return False
    return isinstance(module, (*LAYERS, *NORMS)) or type(module).__module__.startswith("torch.nn.")


class _Tracer(fx.Tracer):
    def __init__(self, opaque: set[nn.Module]) -> None:
        super().__init__()
        self.opaque = opaque

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.opaque or _is_leaf(m)


def _traced(root: nn.Module, names: Names, opaque: set[nn.Module]) -> dict[nn.Module, Follower]:
    graph = _Tracer(opaque).trace(root)
    readers: dict[nn.Module, list[Follower]] = {}
    known: dict[fx.Node, list[Follower]] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(layer := root.get_submodule(node.target), LAYERS):
            # A layer that is called more than once is followed by a norm each time, or not at all.
            readers.setdefault(layer, []).extend(
                _readers(node, root, names, known) or [Follower(False, "nothing reads it")]
            )
    return {
        layer: next((reader for reader in found if not reader.is_norm), found[0]) for layer, found in readers.items()
    }


def _readers(node: fx.Node, root: nn.Module, names: Names, known: dict[fx.Node, list[Follower]]) -> list[Follower]:
    """Return what reads a node's values, directly or through what leaves a channel's factor and term alone."""
    if node not in known:
        known[node] = []
        for user in node.users:
            module = root.get_submodule(str(user.target)) if user.op == "call_module" else None
            name = names[module] if module else getattr(user.target, "__name__", str(user.target))
            if isinstance(module, NORMS) or user.target in NORM_FUNCTIONS:
                known[node].append(Follower(True, f"followed by {name}"))
            elif isinstance(module, TRANSPARENT_MODULES) or (module is None and name in TRANSPARENT_NAMES):
                known[node] += _readers(user, root, names, known)
            elif name not in METADATA:
                known[node].append(Follower(False, f"its output goes to {name}, not to a norm"))
    return known[node]


def _registered(container: nn.Module, error: str) -> dict[nn.Module, Follower]:
    """Guess from the order of registration: a norm follows the last layer of as many channels that has none yet."""
    kind = type(container).__name__
    found: dict[nn.Module, Follower] = {}
    for module in _children(container):
        if isinstance(module, LAYERS):
            found[module] = Follower(False, f"no norm registered behind it, and {kind} cannot be traced: {error}")
        elif isinstance(module, NORMS):
            open_layers = [layer for layer, follower in found.items() if not follower.is_norm]
            fitting = [layer for layer in open_layers if _channels(layer) == _channels(module)]
            if fitting:
                why = f"a norm registered behind it; {kind} cannot be traced: {error}"
                found[fitting[-1]] = Follower(True, why)
    return found


def _children(container: nn.Module) -> list[nn.Module]:
    """Return a module's own parts in order, with those of its lists and dictionaries, which have no forward."""
    parts = []
    for child in container.children():
        parts += _children(child) if isinstance(child, (nn.ModuleList, nn.ModuleDict)) else [child]
    return parts


def _channels(module: nn.Module) -> Any:
    """Return the channels that a layer gives or a norm takes; None where it does not say."""
    for name in ("out_channels", "out_features", "num_features", "num_channels"):
        if hasattr(module, name):
            return getattr(module, name)
    return None
