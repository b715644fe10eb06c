"""An average of a network's weights over its last steps (Polyak and Juditsky 1992; as EMA in arXiv 2003.04297).

    average += max(1 / (step + 1), 1 / window) * (weights - average)

So it is the plain mean of all steps until there are as many as the window, and forgets exponentially from then on.
"""

import copy

import torch
from torch import nn


class Average:
    """A copy of `model` whose parameters, and running estimates, are averages of the model's.

    Args:
        model: where it will compute.
        window: steps, at least 1, over which it averages.
    """

    def __init__(self, model: nn.Module, window: float) -> None:
        self.window = max(1.0, window)
        self.model = copy.deepcopy(model).requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after optimizer step `step` (from 0)."""
        share = max(1 / (step + 1), 1 / self.window)
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, share)
            else:  # how many batches a norm has seen
                mine.copy_(theirs)
