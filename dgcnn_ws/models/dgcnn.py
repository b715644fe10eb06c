"""DGCNN as it is used today (https://arxiv.org/abs/1801.07829): four EdgeConvs, each on its own graph."""

import torch
from torch import Tensor, nn

from dgcnn_ws.models.head import Head, default_head_norm
from dgcnn_ws.models.settings import WithSettings
from dgcnn_ws.nn.edge_conv import EdgeConv
from dgcnn_ws.nn.global_feature import GlobalFeature

GROUPS = 64  # docs/RESULTS.md: more groups fit the training set faster


class DGCNN(WithSettings):
    """Classify point clouds: EdgeConv blocks, their outputs side by side, one pooled vector, a head.

    Args:
        num_classes: number of logits.
        k: neighbours of a point in each layer's graph, itself included.
        norm: `ws_gn` · `gn` · `ws_bn` · `bn` · `ws_bcn`, for EdgeConvs and the shared convolution.
        head_norm: `bn` · `gn` · `ln` · `est` · `none`, for the fully connected head; None: the norm's default.
        backend: `auto` · `fused` · `reference` (see `EdgeConv`).
        in_channels: channels of a point, 3 for coordinates.
        widths: output channels of each EdgeConv.
        emb_dims: channels of the shared convolution before pooling.
        hidden: sizes of the head's hidden layers.
        dropout: probability after each hidden layer.
        groups: groups of every group norm, lowered to a divisor of its channels.

    Shapes: (B, in_channels, N) -> (B, num_classes). Raises InputError where N < k.
    """

    def __init__(
        self,
        num_classes: int = 40,
        k: int = 20,
        norm: str = "ws_gn",
        head_norm: str | None = None,
        backend: str = "auto",
        *,
        in_channels: int = 3,
        widths: tuple[int, ...] = (64, 64, 128, 256),
        emb_dims: int = 1024,
        hidden: tuple[int, ...] = (512, 256),
        dropout: float = 0.5,
        groups: int = GROUPS,
    ) -> None:
        super().__init__()
        head_norm = default_head_norm(norm) if head_norm is None else head_norm
        self.edge_convs = nn.ModuleList(
            EdgeConv(c_in, c_out, k, norm, backend, groups=groups)
            for c_in, c_out in zip((in_channels, *widths), widths, strict=False)
        )
        self.global_feature = GlobalFeature(sum(widths), emb_dims, norm, backend, groups=groups)
        self.head = Head(
            2 * emb_dims,
            num_classes,
            hidden,
            norm,
            head_norm,
            parts=2,
            groups=groups,
            act=nn.LeakyReLU(0.2),
            # The first hidden layer has no bias, the others do: the public networks' layout.
            bias=tuple(i > 0 for i in range(len(hidden))),
            dropout=(dropout,) * len(hidden),
        )
        self.remember(k=k, norm=norm, head_norm=head_norm, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        features = []
        for edge_conv in self.edge_convs:
            x = edge_conv(x)  # (B, width, N), the graph of the k nearest in the block's own input
            features.append(x.transpose(1, 2))
        x = torch.cat(features, dim=2).transpose(1, 2)  # (B, sum(widths), N), points-major in memory
        return self.head(self.global_feature(x))  # (B, 2 emb_dims) -> (B, num_classes)
