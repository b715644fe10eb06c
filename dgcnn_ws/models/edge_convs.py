"""What every DGCNN begins with: EdgeConvs one behind the other, each on its own graph."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.edge_conv import EdgeConv

GRAPHS = ("coordinates", "all")


class EdgeConvs(nn.ModuleList):
    """EdgeConvs, each on the k nearest neighbours in the one before it; their outputs side by side.

    Args:
        in_channels: channels of a point.
        widths: output channels of each EdgeConv, or of each convolution in it.
        k, norm, backend, layer: `EdgeConv`'s arguments, the same for all.
        graph: what the first one's neighbours are near in: `all` channels of a point, or its `coordinates`, the
            first 3. Those of the others are near in the features that the one before made.

    Shapes: (B, in_channels, N) -> (B, out_channels, N), which lies in memory as (B, N, out_channels).
    """

    def __init__(
        self,
        in_channels: int,
        widths: Sequence[int | Sequence[int]],
        k: int,
        norm: str,
        backend: str,
        graph: str = "all",
        **layer: Any,
    ) -> None:
        if graph not in GRAPHS:
            raise InputError(f"graph {graph!r} is unknown. Choose one of {', '.join(GRAPHS)}.")
        outputs = [width if isinstance(width, int) else width[-1] for width in widths]
        super().__init__(
            EdgeConv(c_in, width, k, norm, backend, **layer)
            for c_in, width in zip((in_channels, *outputs), widths, strict=False)
        )
        self.out_channels = sum(outputs)
        self.on_coordinates = graph == "coordinates" and in_channels > 3

    def forward(self, x: Tensor) -> Tensor:
        features, pos = [], x[:, :3] if self.on_coordinates else None
        for edge_conv in self:
            x, pos = edge_conv(x, pos=pos), None  # (B, width, N), the graph of the k nearest in the block's own input
            features.append(x.transpose(1, 2))
        return torch.cat(features, dim=2).transpose(1, 2)
