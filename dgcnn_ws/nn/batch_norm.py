"""Batch norm as an affine map computed from moments, of one process's clouds or of those of all processes."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


class SyncBatchNorm(_BatchNorm):
    """Batch norm, of any number of dimensions, over the batches that all processes see at the same time.

    Outputs, gradients and running statistics are those of one process that sees the batches side by side. Every
    process must run the same layers in the same order. Unlike torch's layer of this name it works on the CPU too,
    and on moments alone (`batch_affine`). In evaluation, and where there is one process, it is torch's batch norm.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass  # any number

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        values = input.transpose(0, 1).flatten(1).to(torch.promote_types(input.dtype, torch.float32))  # (C, values)
        var, mean = torch.var_mean(values, dim=1, correction=0)
        scale, shift = batch_affine(self, mean[None], var[None], values.shape[1])
        channels = (-1,) + (1,) * (input.dim() - 2)
        return (input * scale[0].view(channels) + shift[0].view(channels)).to(input.dtype)


def synchronize_batch_norms(model: nn.Module) -> None:
    """Put a `SyncBatchNorm` in the place of every batch norm within `model`, with its parameters and statistics."""
    for name, norm in list(model.named_modules()):
        if isinstance(norm, _BatchNorm):
            synced = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
            synced._parameters, synced._buffers = norm._parameters, norm._buffers
            model.set_submodule(name, synced.train(norm.training))


def batch_affine(norm: _BatchNorm, mean: Tensor, var: Tensor, count: int | Tensor) -> tuple[Tensor, Tensor]:
    """Return `affine_from_moments` (`dgcnn_ws.nn.norm`) of a batch norm."""
    if norm.training or norm.running_mean is None or norm.running_var is None:
        values: int | Tensor = mean.shape[0] * count if isinstance(count, int) else count.sum()
        if isinstance(values, Tensor) and not torch.compiler.is_compiling():
            values = int(values)
        batch_mean = _pooled(mean, count)
        batch_var = _pooled(var + (mean - batch_mean).square(), count)
        if isinstance(norm, SyncBatchNorm) and dist.is_initialized() and dist.get_world_size() > 1:
            batch_mean, batch_var, values = _PooledProcesses.apply(batch_mean, batch_var, values)
        elif not isinstance(values, Tensor) and values == 1:
            raise ValueError("BatchNorm in training needs more than 1 value per channel; it got 1.")
        if norm.training and norm.running_mean is not None:
            _track_batch(norm, batch_mean.detach(), batch_var.detach(), values)
    else:
        batch_mean, batch_var = norm.running_mean, norm.running_var
    scale = norm.weight * (batch_var + norm.eps).rsqrt()
    return scale.expand_as(mean), (norm.bias - batch_mean * scale).expand_as(mean)


def _pooled(means: Tensor, count: int | Tensor) -> Tensor:
    """Return the mean (C,) of all values from each cloud's mean (B, C) of `count` values."""
    if isinstance(count, int):
        return means.mean(0)
    return (count.to(means.dtype) / count.sum()) @ means


class _PooledProcesses(torch.autograd.Function):
    """Mean and biased variance of all processes' values, and their number, from those of each: m_p, v_p, n_p.

        n = Σ n_p,   m = Σ n_p m_p / n,   v = Σ n_p (v_p + (m_p − m)²) / n

    One collective forward, which gathers the moments, and one backward, which adds up dL/dm and dL/dv:

        dL/dm_p = n_p / n (dL/dm + 2 (m_p − m) dL/dv),   dL/dv_p = n_p / n dL/dv
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, var: Tensor, values: int) -> tuple[Tensor, Tensor, Tensor]:
        mine = torch.cat([mean, var, mean.new_full((1,), values)])
        every = mine.new_empty(dist.get_world_size(), len(mine))
        dist.all_gather(list(every), mine)
        means, variances, counts = every.split([len(mean), len(var), 1], dim=1)
        total = counts.sum()
        pooled_mean = (counts / total * means).sum(0)
        pooled_var = (counts / total * (variances + (means - pooled_mean).square())).sum(0)
        ctx.save_for_backward(mean - pooled_mean, values / total)
        ctx.mark_non_differentiable(total)
        return pooled_mean, pooled_var, total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, mean_grad: Tensor, var_grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None]:
        offset, share = ctx.saved_tensors
        grads = torch.cat([mean_grad, var_grad])
        dist.all_reduce(grads)
        mean_grad, var_grad = grads.chunk(2)
        return share * (mean_grad + 2 * offset * var_grad), share * var_grad, None


@torch.no_grad()
def _track_batch(norm: _BatchNorm, mean: Tensor, var: Tensor, count: int | Tensor) -> None:
    """Update running statistics as torch's batch norm does: unbiased variance, momentum None = average."""
    assert norm.running_mean is not None and norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    rate = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), rate)
    norm.running_var.lerp_((var * (count / (count - 1))).to(norm.running_var.dtype), rate)
