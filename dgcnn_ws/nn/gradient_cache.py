"""Backpropagation through a batch that its loss needs whole, with memory for the body of a part of it."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def cached_backward(
    body: Callable[[Tensor], Tensor], parts: Sequence[Tensor], backward: Callable[[Tensor], None], model: nn.Module
) -> None:
    """Add the gradients of a loss of all parts' outputs together, as if `body` had seen them at once.

    The gradient cache of https://arxiv.org/abs/2101.06983: the outputs of all parts without a graph, the loss's
    gradient with respect to these, and each part once more, with a graph, to bring its share of that to the weights.
    It costs a second forward pass of the body. The result is exact where no part's output depends on another part, as
    with group norms and, inside `one_update`, running estimates; a batch norm in the body sees one part at a time, as
    ever.

    Args:
        body: the same function of its argument and `model` at each call: no dropout.
        parts: micro-batches (B_i, ...).
        backward: takes the outputs (ΣB_i, ...), a leaf that wants a gradient, computes the loss and backpropagates.
        model: owns the body; what its forward passes do to buffers (running statistics) is done once.

    Raises ValueError where `backward` leaves the outputs without a gradient.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        try:
            outputs = torch.cat([body(part) for part in parts])
        finally:
            for buffer, value in zip(model.buffers(), before, strict=True):
                buffer.copy_(value)
    backward(outputs.requires_grad_())
    if outputs.grad is None:
        raise ValueError("backward(outputs) must backpropagate to its argument, and left it without a gradient.")
    for part, gradient in zip(parts, outputs.grad.split([len(part) for part in parts]), strict=True):
        if (again := body(part)).requires_grad:  # no, where the body is frozen
            again.backward(gradient)
