"""Weight standardization and group norm for any torch model, and standardized weights baked in for inference.

What the paper (https://arxiv.org/abs/1903.10520) does to its ImageNet, VOC and COCO networks: a convolution or
linear layer that a normalisation follows is standardized, batch norm becomes group norm, and the last layers stay.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dgcnn_ws.nn.followers import (
    NORMS,
    Follower,
    is_geometric_linear,
    is_geometric_norm,
    is_layer,
    is_uninitialized,
    look_at,
)
from dgcnn_ws.nn.norm import legal_groups
from dgcnn_ws.nn.replace_norm import group_norm_for, holds_frozen_statistics
from dgcnn_ws.nn.weight_standardization import WSConv1d, WSConv2d, WSConv3d, WSLinear, standardize_weight

STANDARDIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: WSConv1d,
    nn.Conv2d: WSConv2d,
    nn.Conv3d: WSConv3d,
    nn.Linear: WSLinear,
}

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Change:
    """What became of one layer or norm: `after` is its new class, or None where it was left, and `why`."""

    name: str
    before: str
    after: str | None
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.before} {f'-> {self.after}' if self.after else 'left'} ({self.why})"


class Report(tuple[Change, ...]):
    """What became of a converted model's layers, norms and other weights, in the model's order; prints a line for each.

    It also names the modules that call a batch norm as a function, and those that are scripted.
    """

    @property
    def changed(self) -> list[Change]:
        return [change for change in self if change.after]

    @property
    def left(self) -> list[Change]:
        return [change for change in self if not change.after]

    def __str__(self) -> str:
        return "\n".join([f"{len(self.changed)} changed, {len(self.left)} left", *map(str, self)])


class Conversion(NamedTuple):
    """A converted model and the report of what was done to it."""

    model: nn.Module
    report: Report


def convert_to_ws_gn(model: nn.Module, groups: int = 32) -> Conversion:
    """Return a copy of `model` with weight standardization where a norm follows, and group norm for batch norm.

    Conv1d/2d/3d and Linear, torch_geometric's too, become WSConv1d/2d/3d and WSLinear where all that reads their output
    is a norm, perhaps through a reshape, pooling, concatenation or dropout; BatchNorm and SyncBatchNorm become
    GroupNorm, with the activation that a subclass may hold inside. Weights, biases and affine factors are kept, and so
    are their names in the state dict; running statistics are gone. The function changes: train it, from here or anew.
    What follows what is traced (torch.fx); in a module that cannot be traced, a norm is taken to follow the layer of as
    many channels that was registered last before it. What is left is named with the reason: frozen statistics, batch
    norms called as functions, scripted modules, weights that a hook computes, depthwise convolutions.

        model, report = convert_to_ws_gn(resnet50())

    Args:
        model: any module; it stays as it is.
        groups: groups of a group norm, lowered to a divisor of its channels that leaves 2 channels a group or more, 16
            or more where a channel is a single number: behind a global pooling that the tracer sees, and in place of a
            BatchNorm1d, which may see vectors; 1 group where there are fewer.

    Raises InputError for groups below 1.
    """
    legal_groups(groups, 1)
    model = _copy(model)
    found = look_at(model)
    replaced: dict[nn.Module, nn.Module] = {}
    changes = []
    for name, module in _modules(model):
        before = type(module).__name__
        after, why = None, None
        if isinstance(module, torch.jit.ScriptModule):
            before, why = getattr(module, "original_name", before), "scripted: its code is fixed; convert, then script"
        elif is_layer(module):
            why = _obstacle(module, found.followers[module])
            if why is None:
                replaced |= _standardize(module)
                after, why = type(replaced.get(module, module)).__name__, found.followers[module].why
        elif isinstance(module, _BatchNorm):
            vectors = module in found.of_vectors or (isinstance(module, nn.BatchNorm1d) and module.num_features == 1)
            norm, why = group_norm_for(module, groups, vectors)
            if norm is not None:
                replaced[module], after = norm, type(norm).__name__
        elif isinstance(module, NORMS):
            why = "not one of torch's batch norms"
        elif holds_frozen_statistics(module):
            why = "its statistics are frozen: it needs no batch, and belongs to the weights in front of it"
        elif is_geometric_norm(module):
            module.__dict__["allow_single_element"] = (
                False  # it would look for running statistics; a group norm needs none
            )
        elif _calls_batch_norm(module):
            before, why = f"batch_norm in {before}", "called as a function; it still needs a batch"
        elif any(parameter.dim() > 1 for parameter in module.parameters(recurse=False) if not is_uninitialized(module)):
            why = "weights of its own, not one of torch's convolutions or linear layers"
        if why is not None:
            changes.append(Change(name, before, after, why))
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replaced:
                parent._modules[name] = replaced[child]
    return Conversion(replaced.get(model, model), Report(changes))


def _copy(model: Model) -> Model:
    """Copy a model, also one with tensors that hooks computed, which torch's deepcopy refuses."""
    computed = (value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return deepcopy(model, {id(value): value.detach().clone() for value in computed if not value.is_leaf})


def _modules(model: nn.Module, name: str = "", seen: set[nn.Module] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module once, in order, with its name; none of those within a scripted one."""
    seen = set() if seen is None else seen
    if model in seen:
        return
    seen.add(model)
    yield name, model
    if not isinstance(model, torch.jit.ScriptModule):
        for child_name, child in model.named_children():
            yield from _modules(child, f"{name}.{child_name}" if name else child_name, seen)


def _calls_batch_norm(module: nn.Module) -> bool:
    """Return whether a module's own code calls batch norm as a function."""
    if type(module).__module__.startswith("torch.nn."):
        return False
    own = (value for kind in type(module).__mro__ if kind is not nn.Module for value in vars(kind).values())
    return any("batch_norm" in getattr(getattr(value, "__code__", None), "co_names", ()) for value in own)


def _standardize(layer: Any) -> dict[nn.Module, nn.Module]:
    """Make a layer standardize its weight; return what takes its place, where it cannot be made so itself."""
    if not is_geometric_linear(layer):
        _become(layer, STANDARDIZED[type(layer)])
        return {}
    linear: Any = WSLinear(layer.in_channels, layer.out_channels, layer.bias is not None, device="meta")
    linear.weight, linear.bias = layer.weight, layer.bias
    linear.in_channels, linear.out_channels = layer.in_channels, layer.out_channels  # as its neighbours know it
    return {layer: linear.train(layer.training)}


def _become(module: nn.Module, layer: type[nn.Module]) -> None:
    module.__class__ = layer  # same arguments, weights, hooks and state dict; only forward differs


def _obstacle(module: nn.Module, follower: Follower) -> str | None:
    """Return why a layer is left as it is."""
    if type(module) in STANDARDIZED.values():
        return "standardized already"
    if is_uninitialized(module):
        return "lazy: it has no weight yet; call the model once, then convert"
    if not follower.is_norm:
        return follower.why
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed by a hook or a parametrization"
    if type(module) not in STANDARDIZED and not is_geometric_linear(module):
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        return (
            "transposed: its filters have no fan-in of their own" if transposed else "a subclass, with rules of its own"
        )
    if weight[0].numel() < 2:
        return "fan-in 1: one weight has no standard deviation"
    if getattr(module, "groups", 1) > 1 and weight.shape[1] == 1:
        return "depthwise: standardized, each filter would sum to zero and lose its channel's level"
    return None


def fuse(model: Model) -> Model:
    """Return a copy of `model` whose standardized layers are plain ones with their standardized weights, for inference.

    The copy computes the same to the bit, without standardizing at every call, and with torch's own layers alone. It
    is not for training: there the weights would no longer be standardized. Call it before torch's fuse_conv_bn_eval,
    whose result is wrong for standardized layers.
    """
    model = _copy(model)
    plain = {standardized: layer for layer, standardized in STANDARDIZED.items()}
    for module in model.modules():
        if type(module) in plain and "weight" in module._parameters:
            weight = module.weight
            assert isinstance(weight, nn.Parameter)
            with torch.no_grad():
                module.weight = nn.Parameter(standardize_weight(weight), weight.requires_grad)
            _become(module, plain[type(module)])
    return model
