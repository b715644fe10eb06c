"""The product of points and weights. torch's own is the rule; on x86 CPUs in float32 oneDNN does the same faster.

torch sends float32 products to MKL, which keeps to narrow instructions on processors that are not Intel's:
oneDNN, which torch ships too, reached twice the rate on an AMD EPYC (docs/PERFORMANCE.md).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dgcnn_ws.ops.literal import transformed


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


ONEDNN = _has_onednn()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + bias, as `torch.nn.functional.linear` does: (..., C), (C', C), (C',) -> (..., C')."""
    if transformed():
        return F.linear(x, weight, bias)
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or weight.dtype != torch.float32
    if plain or not ONEDNN or x.numel() == 0 or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight, bias)
    return _quickest(x, weight, bias)


def _quickest(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    differentiable = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    traced = type(x) is not Tensor or torch.compiler.is_compiling()
    # An operator that autograd and the compiler know costs some 50 us more, which a small product feels.
    return _linear(x, weight, bias) if differentiable or traced or bias is not None else _product(x, weight)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not (weight.is_contiguous() or weight.t().is_contiguous()):  # such as some columns of a larger weight,
        weight = weight.contiguous()  # for which oneDNN takes a thousand times as long
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@torch.library.custom_op("dgcnn_ws::linear", mutates_args=())
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _product(x, weight, bias)


@_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    rows, g_rows = x.flatten(0, -2), g.flatten(0, -2)
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    return (
        _quickest(g, weight.t()) if needs_x else None,
        # The transpose of gᵀx: oneDNN is fastest with the short side first.
        _quickest(rows.t(), g_rows.t()).t() if needs_weight else None,
        g_rows.sum(0) if needs_bias else None,
    )


_linear.register_autograd(_backward, setup_context=_save)
