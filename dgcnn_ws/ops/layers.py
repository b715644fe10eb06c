"""The layers after an edge block's first, as the operators take them."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Layers(NamedTuple):
    """y_{l+1} = weight_l leaky_relu(scale_l y_l + shift_l) + bias_l of l = 1..m; a mean has one affine map more.

    Attributes:
        scales, shifts: m or m + 1 of (B, C_l).
        weights: m of (C_{l+1}, C_l).
        biases: m of (C_{l+1},), or none.
        slope: of the leaky ReLU, in [0, 1].
    """

    scales: Sequence[Tensor]
    shifts: Sequence[Tensor]
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]
    slope: float

    def lists(self) -> tuple[list[Tensor], ...]:
        """Return scales, shifts, weights and biases, as torch's operators want them."""
        return list(self.scales), list(self.shifts), list(self.weights), list(self.biases)
