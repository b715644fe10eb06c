"""Weight Standardization (Qiao et al., https://arxiv.org/abs/1903.10520), for 1D, 2D, 3D and linear layers.

Each output filter w of a layer is used as

    w_hat = (w - mean(w)) / (std(w) + eps)

with the mean and the unbiased standard deviation taken over the filter's fan-in (in_channels / groups x kernel).
The parameters themselves stay as they are: the layers below load and save the state dicts of torch's own.
Meant for a layer that a normalisation follows: what the standardization removes there has no effect anyway.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from dgcnn_ws.errors import InputError

EPS = 1e-5


def standardize_weight(weight: Tensor, eps: float = EPS) -> Tensor:
    """Return `weight` with mean 0 and std 1 over everything but its first dimension.

    Args:
        weight: (out_channels, ...), any floating dtype. Statistics are taken in float32 at least: in half
            precision a filter of fan-in 512 has a std near eps and would shrink by a third.
        eps: added to the std, outside the root, as in the paper.

    Returns:
        A tensor of the shape and dtype of `weight`. A constant filter gives zeros, and finite gradients.
    """
    precise = (weight if weight.dtype == torch.float64 else weight.float()).flatten(1)
    # Forward mode wants torch's own operations.
    standardize = _standardize_rows if forward_ad._current_level >= 0 else _Standardize.apply
    return standardize(precise, eps)[0].view_as(weight).to(weight.dtype)


class _Standardize(torch.autograd.Function):
    """Rows w of a matrix as y = (w − mean(w)) r, r = 1 / (std(w) + eps). The gradient of w, from g of y, is

        r (g − mean(g)) − y ⟨g, y⟩ / ((n − 1) std(w))

    in a third of the passes over the matrix that autograd's own takes: with one cloud at a time that is felt.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        return _standardize_rows(weight, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: tuple[Tensor, Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(inputs[0], *output)
        ctx.eps = inputs[1]

    @staticmethod
    def backward(ctx: Any, g: Tensor, *_: Any) -> tuple[Tensor, None]:
        weight, y, scale, std = ctx.saved_tensors
        if torch.is_grad_enabled():  # someone takes the gradient of this gradient: let all of it depend on the weight
            y, scale, std = _standardize_rows(weight, ctx.eps)
        along = (g * y).sum(dim=1, keepdim=True) / ((y.shape[1] - 1) * std)
        return torch.addcmul((g - g.mean(dim=1, keepdim=True)) * scale, y, along, value=-1), None


def _standardize_rows(weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (w − mean(w)) r, r, and std(w) of each row."""
    # In two passes rather than by torch.var_mean, which takes three times as long along rows on the CPU.
    centred = weight - weight.mean(dim=1, keepdim=True)
    variance = centred.square().sum(dim=1, keepdim=True) / (weight.shape[1] - 1)
    # Not below the smallest number, so that a constant row divides zero by it, and not by zero.
    std = variance.clamp_min(torch.finfo(weight.dtype).tiny).sqrt()
    scale = (std + eps).reciprocal()
    return centred * scale, scale, std


def _require_fan_in(layer: nn.Module, fan_in: int) -> None:
    if fan_in < 2:
        raise InputError(
            f"{type(layer).__name__} with fan-in {fan_in}: one weight per filter has no standard deviation. "
            "Use more input channels per group, a larger kernel, or torch's plain layer."
        )


class WSConv1d(nn.Conv1d):
    """`torch.nn.Conv1d` that standardizes its weight at every forward pass; same arguments, same state dict.

    Shapes: (B, in_channels, L) -> (B, out_channels, L'). Raises InputError where the fan-in is 1.
    """

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]  # the signature is torch's
        super().__init__(*args, **kwargs)
        _require_fan_in(self, self.weight[0].numel())

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, standardize_weight(self.weight), self.bias)


class WSConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` that standardizes its weight at every forward pass; same arguments, same state dict.

    Shapes: (B, in_channels, H, W) -> (B, out_channels, H', W'). Raises InputError where the fan-in is 1.
    """

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]  # the signature is torch's
        super().__init__(*args, **kwargs)
        _require_fan_in(self, self.weight[0].numel())

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, standardize_weight(self.weight), self.bias)


class WSConv3d(nn.Conv3d):
    """`torch.nn.Conv3d` that standardizes its weight at every forward pass; same arguments, same state dict.

    Shapes: (B, in_channels, D, H, W) -> (B, out_channels, D', H', W'). Raises InputError where the fan-in is 1.
    """

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]  # the signature is torch's
        super().__init__(*args, **kwargs)
        _require_fan_in(self, self.weight[0].numel())

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, standardize_weight(self.weight), self.bias)


class WSLinear(nn.Linear):
    """`torch.nn.Linear` that standardizes its weight at every forward pass; same arguments, same state dict.

    Shapes: (..., in_features) -> (..., out_features). Raises InputError where in_features is 1.
    """

    def __init__(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]  # the signature is torch's
        super().__init__(*args, **kwargs)
        _require_fan_in(self, self.in_features)

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, standardize_weight(self.weight), self.bias)


def effective_weight(layer: nn.Linear | nn.Conv1d | nn.Conv2d) -> Tensor:
    """Return the weight that `layer` multiplies with: standardized for the layers above, its own otherwise."""
    if isinstance(layer, (WSConv1d, WSConv2d, WSLinear)):
        return standardize_weight(layer.weight)
    return layer.weight
