"""What takes a batch norm's place in a converted model: a group norm, with what the batch norm did besides."""

from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from dgcnn_ws.nn.batch_norm import SyncBatchNorm
from dgcnn_ws.nn.norm import RunningEstimates, legal_groups

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, SyncBatchNorm)
# Where a group is a handful of numbers its norm leaves little but their signs: a vector's groups must be larger.
FEWEST_CHANNELS, FEWEST_OF_A_VECTOR = 2, 16


class GroupNormThen(nn.GroupNorm):
    """Group norm, then the modules that a batch norm held inside it: an activation, a dropout."""

    def forward(self, input: Tensor) -> Tensor:
        x = super().forward(input)
        for child in self.children():
            x = child(x)
        return x


def holds_frozen_statistics(module: nn.Module) -> bool:
    """Return whether a module normalises by statistics that never move: no torch norm, but with buffers like one."""
    if isinstance(module, (_BatchNorm, nn.modules.instancenorm._InstanceNorm, RunningEstimates)):
        return False
    return {"running_mean", "running_var"} <= module._buffers.keys()


def group_norm_for(norm: _BatchNorm, groups: int, of_vectors: bool) -> tuple[nn.GroupNorm | None, str]:
    """Return the group norm that takes a batch norm's place, or None; and in words how, or why none does.

    Args:
        groups: asked for; lowered to a divisor of the channels that leaves enough of them in a group.
        of_vectors: whether a channel is a single number: there is nothing else in a group than its channels.
    """
    channels = norm.num_features
    if of_vectors and channels <= FEWEST_CHANNELS:
        return None, f"of {channels} numbers group norm would leave signs alone; it still needs a batch"
    kind: type[nn.GroupNorm] = nn.GroupNorm
    if type(norm) not in BATCH_NORMS:
        if not _normalises_then_applies_its_parts(norm):
            return None, "a batch norm with rules of its own; it still needs a batch"
        kind = GroupNormThen
    fewest = FEWEST_OF_A_VECTOR if of_vectors or isinstance(norm, nn.BatchNorm1d) else FEWEST_CHANNELS
    num_groups = legal_groups(groups, channels, fewest)
    found = kind(num_groups, channels, norm.eps, norm.affine)
    if norm.affine:
        found.weight, found.bias = norm.weight, norm.bias
    for name, part in norm.named_children():
        found.add_module(name, part)
    return found.train(norm.training), f"{channels} channels, groups: {num_groups}" + (
        ", behind pooling to one number a channel" if of_vectors and not isinstance(norm, nn.BatchNorm1d) else ""
    )


@torch.no_grad()
def _normalises_then_applies_its_parts(norm: _BatchNorm) -> bool:
    """Try, in evaluation and on numbers, whether a subclass is batch norm and then its children in order."""
    generator = torch.Generator().manual_seed(0)
    size = (3,) * (3 if isinstance(norm, nn.BatchNorm3d) else 1 if isinstance(norm, nn.BatchNorm1d) else 2)
    try:
        twin = deepcopy(norm).to("cpu", torch.float32).eval()
        for tensor in (*twin.parameters(recurse=False), twin.running_mean, twin.running_var):
            assert tensor is not None
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        x = torch.randn(4, twin.num_features, *size, generator=generator) * 2
        mean, var = twin.running_mean, twin.running_var
        expected = F.batch_norm(x, mean, var, twin.weight, twin.bias, False, 0.0, twin.eps)
        for part in twin.children():
            expected = part(expected)
        return torch.allclose(twin(x), expected, rtol=1e-4, atol=1e-5)
    except Exception:  # whatever a forward method of someone else's may raise
        return False
