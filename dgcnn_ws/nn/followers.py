"""What reads a layer's output: a norm, or something else. Traced by torch.fx where a module can be traced."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter

from dgcnn_ws.nn.norm import RunningEstimates
from dgcnn_ws.nn.replace_norm import holds_frozen_statistics

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
_ACTIVATIONS = {"relu", "gelu", "silu", "leaky_relu", "elu", "sigmoid", "hardswish", "hardsigmoid", "relu6", "tanh"}
_TO_ONE = {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d"}
_OVER_DIMS = {"mean", "amax", "sum"}
METADATA = {"getattr", "size", "dim", "numel"}  # reads no values


Names = dict[nn.Module, str]


def is_layer(module: nn.Module) -> bool:
    """Return whether a module is a convolution or linear layer: torch's, a subclass, or torch_geometric's Linear."""
    return isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) or is_geometric_linear(module)


def is_geometric_linear(module: nn.Module) -> bool:
    """By name, so that torch_geometric need not be there."""
    kind = type(module)
    return (kind.__module__, kind.__qualname__) == ("torch_geometric.nn.dense.linear", "Linear")


def is_geometric_norm(module: nn.Module) -> bool:
    """Return whether a module is torch_geometric's wrapper of a batch norm."""
    kind = type(module)
    return (kind.__module__, kind.__qualname__) == ("torch_geometric.nn.norm.batch_norm", "BatchNorm")


def is_norm(module: nn.Module) -> bool:
    return isinstance(module, NORMS) or is_geometric_norm(module)


def is_uninitialized(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), UninitializedParameter)


@dataclass(frozen=True)
class Follower:
    """Whether a norm, and only norms, read a layer's output, and how that is known."""

    is_norm: bool
    why: str


@dataclass
class Findings:
    """What is known of a model: each layer's follower, and the norms that see one number of each channel."""

    followers: dict[nn.Module, Follower]
    of_vectors: set[nn.Module]


def look_at(model: nn.Module) -> Findings:
    """Return what follows each convolution and linear layer of a model, and which norms lie behind a global pooling."""
    modes = [(module, module.training) for module in model.modules()]
    model.train()  # with the branches that only training takes
    names = {module: name for name, module in model.named_modules()}
    found = Findings({}, set())
    try:
        _visit(model, names, found)
    finally:
        for module, training in modes:
            module.training = training
    for module in model.modules():
        if is_layer(module):
            found.followers.setdefault(module, Follower(False, "nothing that could be traced calls it"))
    return found


def _visit(module: nn.Module, names: Names, found: Findings) -> bool:
    """Fill in what is found within a module; return whether it could be traced."""
    if isinstance(module, torch.jit.ScriptModule):
        return False
    try:
        _traced(module, names, set(), found)
        return True
    except Exception as error:  # whatever a forward method may raise on symbols in place of tensors
        why = type(error).__name__
    # A part that cannot be traced is a closed box for the rest.
    opaque = {child for child in module.children() if not _is_leaf(child) and not _visit(child, names, found)}
    try:
        _traced(module, names, opaque, found)
    except Exception:
        found.followers |= _registered(module, why)
        return False
    return True


def _is_leaf(module: nn.Module) -> bool:
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)):
        return False
    if isinstance(module, torch.jit.ScriptModule) or is_norm(module) or is_layer(module):
        return True
    return holds_frozen_statistics(module) or type(module).__module__.startswith("torch.nn.")


class _Tracer(fx.Tracer):
    def __init__(self, opaque: set[nn.Module]) -> None:
        super().__init__()
        self.opaque = opaque

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.opaque or _is_leaf(m)


def _traced(root: nn.Module, names: Names, opaque: set[nn.Module], found: Findings) -> None:
    graph = _Tracer(opaque).trace(root)
    readers: dict[nn.Module, list[Follower]] = {}
    known: dict[fx.Node, list[Follower]] = {}
    for node in graph.nodes:
        module = root.get_submodule(node.target) if node.op == "call_module" else None
        if module is not None and is_layer(module):
            # A layer that is called more than once is followed by a norm each time, or not at all.
            readers.setdefault(module, []).extend(
                _readers(node, root, names, known) or [Follower(False, "nothing reads it")]
            )
        elif isinstance(module, NORMS) and _is_pooled(node, root):
            found.of_vectors.add(module)
    for layer, followers in readers.items():
        found.followers[layer] = next((follower for follower in followers if not follower.is_norm), followers[0])


def _is_pooled(node: fx.Node, root: nn.Module) -> bool:
    """Return whether a node's input was pooled to one number a channel, since when nothing made it larger again."""
    while node.all_input_nodes:
        node = node.all_input_nodes[0]
        name = getattr(node.target, "__name__", str(node.target))
        if node.op == "call_module":
            module = root.get_submodule(str(node.target))
            if isinstance(module, nn.modules.pooling._AdaptiveAvgPoolNd | nn.modules.pooling._AdaptiveMaxPoolNd):
                return _is_one(module.output_size)
            # What keeps one number one: a convolution that pads none, a norm, an activation, a dropout.
            steady = is_layer(module) or isinstance(module, (*NORMS, nn.Dropout, nn.Dropout2d, nn.Identity))
            if not steady and type(module).__module__ != "torch.nn.modules.activation":
                return False
        elif name in _TO_ONE:
            return _is_one(node.args[1] if len(node.args) > 1 else node.kwargs.get("output_size"))
        elif name in _OVER_DIMS:
            dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            return isinstance(dims, (tuple, list)) and {d % 4 for d in dims if isinstance(d, int)} == {2, 3}
        elif name not in _ACTIVATIONS:
            return False
    return False


def _is_one(size: Any) -> bool:
    return size == 1 or (isinstance(size, (tuple, list)) and all(part == 1 for part in size))


def _readers(node: fx.Node, root: nn.Module, names: Names, known: dict[fx.Node, list[Follower]]) -> list[Follower]:
    """Return what reads a node's values, directly or through what leaves a channel's factor and term alone."""
    if node not in known:
        known[node] = []
        for user in node.users:
            module = root.get_submodule(str(user.target)) if user.op == "call_module" else None
            name = names[module] if module else getattr(user.target, "__name__", str(user.target))
            if (module is not None and is_norm(module)) or user.target in NORM_FUNCTIONS:
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
        if is_layer(module):
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
