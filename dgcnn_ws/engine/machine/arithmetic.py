"""The arithmetic of a run: float32, or a lower precision where autocast trusts it, with weights in float32."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

# What each `--precision` lets autocast round to; None leaves everything as it is.
ROUNDED_TO: dict[str, torch.dtype | None] = {"32": None, "bf16": torch.bfloat16, "16": torch.float16}


class Arithmetic:
    """Forward, backward and optimizer step in one precision.

    Gradients in float16 would vanish: their loss is scaled up, and the scale is part of a run's state.

    Args:
        precision: a key of `ROUNDED_TO`.
        device: where the network computes.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self.device, self.dtype = device, ROUNDED_TO[precision]
        self.scaler = torch.amp.GradScaler(device.type) if self.dtype == torch.float16 else None

    def autocast(self) -> AbstractContextManager[Any]:
        """Within the block products round to the precision. Inputs do not: rounded points have other neighbours."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer's step; with scaled gradients, none where one of them is not finite."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)
            self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaler is not None:
            self.scaler.load_state_dict(state)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return what a loss is computed of: logits that were rounded, in float32; others as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
