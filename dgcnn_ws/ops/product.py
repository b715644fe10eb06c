"""The product of points and weights, in float32 and in bfloat16, by the quickest routine that the processor has.

torch sends float32 products to MKL, which keeps to narrow instructions on processors that are not Intel's:
oneDNN, which torch ships too, reached twice the rate on an AMD EPYC (docs/PERFORMANCE.md). bfloat16 products need
AMX or AVX512-BF16; without them torch's own are ten times slower than float32's, so that those are taken instead.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dgcnn_ws.ops.checks import check_types
from dgcnn_ws.ops.literal import transformed
from dgcnn_ws.ops.torch_operator import operator


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


ONEDNN = _has_onednn()


@cache
def multiplies_bfloat16(device_type: str = "cpu") -> bool:
    """Return whether the processor (AMX, AVX512-BF16) or the card has instructions for bfloat16 products."""
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return device_type == "cpu" and ONEDNN and any(getattr(torch.cpu, name, bool)() for name in names)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + bias, as `torch.nn.functional.linear` does: (..., C), (C', C), (C',) -> (..., C').

    In bfloat16 where x is, or where autocast says so; a float32 weight that comes with it has a float32 gradient.
    """
    check_types(x, weight)
    if transformed():
        return F.linear(x, weight, bias)
    if x.device.type != "cpu" or not ONEDNN or x.numel() == 0:
        return F.linear(x, weight, bias)
    autocast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    if autocast == torch.bfloat16 and x.dtype == torch.float32:
        x = x.to(autocast)
    if x.dtype == torch.bfloat16:
        if weight.dtype in (torch.bfloat16, torch.float32) and (autocast or weight.dtype == x.dtype):
            return _linear(x, weight, bias)
    elif autocast is None and x.dtype == weight.dtype == torch.float32:
        return _quickest(x, weight, bias)
    return F.linear(x, weight, bias)


def _quickest(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    differentiable = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    traced = type(x) is not Tensor or torch.compiler.is_compiling()
    # An operator that autograd and the compiler know costs some 50 us more, which a small product feels.
    return _linear(x, weight, bias) if differentiable or traced or bias is not None else _product(x, weight)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + bias in x's type, float32 or bfloat16."""
    if x.dtype == torch.bfloat16:
        weight = weight.to(x.dtype)
        if multiplies_bfloat16():
            return F.linear(x, weight, None if bias is None else bias.to(x.dtype))
        return _product(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)
    if not (weight.is_contiguous() or weight.t().is_contiguous()):  # such as some columns of a larger weight,
        weight = weight.contiguous()  # for which oneDNN takes a thousand times as long
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@operator("dgcnn_ws::linear")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _product(x, weight, bias)


@_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.bias_type = None if inputs[2] is None else inputs[2].dtype


def _backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    return (
        _quickest(g, weight.t()) if needs_x else None,
        _weight_gradient(x.flatten(0, -2), g.flatten(0, -2)).to(weight.dtype) if needs_weight else None,
        g.flatten(0, -2).sum(0, dtype=ctx.bias_type) if needs_bias else None,
    )


def _weight_gradient(x: Tensor, g: Tensor) -> Tensor:
    """Return gᵀx of rows x and g, contiguous; in float32 where bfloat16 has no instructions of its own."""
    if x.dtype == torch.bfloat16:
        if multiplies_bfloat16():
            return torch.mm(g.t(), x)
        x, g = x.float(), g.float()
    # oneDNN is fastest with the short side first. What comes after the transpose is slow on what lies transposed.
    return _quickest(x.t(), g.t()).t().contiguous()


_linear.register_autograd(_backward, setup_context=_save)
