"""Weight standardization and group norm for any torch model, and standardized weights baked in for inference.

What the paper (https://arxiv.org/abs/1903.10520) does to its ImageNet, VOC and COCO networks: a convolution or
linear layer that a normalisation follows is standardized, batch norm becomes group norm, and the last layers stay.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import nn

from dgcnn_ws.nn.followers import LAYERS, NORMS, Follower, find_followers
from dgcnn_ws.nn.norm import legal_groups
from dgcnn_ws.nn.weight_standardization import WSConv1d, WSConv2d, WSConv3d, WSLinear, standardize_weight

STANDARDIZED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: WSConv1d,
    nn.Conv2d: WSConv2d,
    nn.Conv3d: WSConv3d,
    nn.Linear: WSLinear,
}
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
# Where a group is a handful of numbers its norm leaves little but their signs: a vector's groups must be larger.
FEWEST_CHANNELS, FEWEST_OF_A_VECTOR = 2, 16

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
    """Every layer and norm of a converted model, in the model's order; prints a line for each."""

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

    Conv1d/2d/3d and Linear become WSConv1d/2d/3d and WSLinear where all that reads their output is a norm, perhaps
    through a reshape, pooling, concatenation or dropout; BatchNorm and SyncBatchNorm become GroupNorm. Weights,
    biases and affine factors are kept, and so are their names in the state dict; running statistics are gone. The
    function changes: train it, from here or anew. What follows what is traced (torch.fx); in a module that cannot
    be traced, a norm is taken to follow the layer of as many channels that was registered last before it.

        model, report = convert_to_ws_gn(resnet50())

    Args:
        model: any module; it stays as it is.
        groups: groups of a group norm, lowered to a divisor of its channels that leaves 2 channels a group or more,
            16 or more in place of a BatchNorm1d, which may see vectors; 1 group where there are fewer.

    Raises InputError for groups below 1.
    """
    legal_groups(groups, 1)
    model = deepcopy(model)
    followers = find_followers(model)
    replaced: dict[nn.Module, nn.Module] = {}
    changes = []
    for name, module in model.named_modules():
        before = type(module).__name__
        if isinstance(module, LAYERS):
            obstacle = _obstacle(module, followers[module])
            if obstacle is None:
                _become(module, STANDARDIZED[type(module)])
            after = None if obstacle else type(module).__name__
            changes.append(Change(name, before, after, obstacle or followers[module].why))
        elif type(module) in BATCH_NORMS:
            replaced[module] = group_norm = _group_norm(module, groups)
            why = f"{group_norm.num_channels} channels, groups: {group_norm.num_groups}"
            changes.append(Change(name, before, "GroupNorm", why))
        elif isinstance(module, NORMS):
            changes.append(Change(name, before, None, "not one of torch's batch norms"))
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replaced:
                parent._modules[name] = replaced[child]
    return Conversion(replaced.get(model, model), Report(changes))


def _become(module: nn.Module, layer: type[nn.Module]) -> None:
    module.__class__ = layer  # same arguments, weights, hooks and state dict; only forward differs


def _obstacle(module: nn.Module, follower: Follower) -> str | None:
    """Return why a layer is left as it is."""
    if type(module) in STANDARDIZED.values():
        return "standardized already"
    if not follower.is_norm:
        return follower.why
    if type(module) not in STANDARDIZED:
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        return (
            "transposed: its filters have no fan-in of their own" if transposed else "a subclass, with rules of its own"
        )
    weight = module._parameters.get("weight")
    if weight is None:
        return "its weight is computed by a hook"
    return "fan-in 1: one weight has no standard deviation" if weight[0].numel() < 2 else None


def _group_norm(norm: nn.modules.batchnorm._BatchNorm, groups: int) -> nn.GroupNorm:
    fewest = FEWEST_OF_A_VECTOR if isinstance(norm, nn.BatchNorm1d) else FEWEST_CHANNELS
    channels = norm.num_features
    num_groups = legal_groups(max(1, min(groups, channels // fewest)), channels)
    group_norm = nn.GroupNorm(num_groups, channels, norm.eps, norm.affine).train(norm.training)
    if norm.affine:
        group_norm.weight, group_norm.bias = norm.weight, norm.bias
    return group_norm


def fuse(model: Model) -> Model:
    """Return a copy of `model` whose standardized layers are plain ones with their standardized weights, for inference.

    The copy computes the same to the bit, without standardizing at every call, and with torch's own layers alone. It
    is not for training: there the weights would no longer be standardized.
    """
    model = deepcopy(model)
    plain = {standardized: layer for layer, standardized in STANDARDIZED.items()}
    for module in model.modules():
        if type(module) in plain and "weight" in module._parameters:
            weight = module.weight
            assert isinstance(weight, nn.Parameter)
            with torch.no_grad():
                module.weight = nn.Parameter(standardize_weight(weight), weight.requires_grad)
            _become(module, plain[type(module)])
    return model
