"""DGCNN as it is used today (https://arxiv.org/abs/1801.07829): four EdgeConvs, each on its own graph."""

from torch import Tensor

from dgcnn_ws.models.edge_convs import EdgeConvs
from dgcnn_ws.models.head import Head, head_norm_word
from dgcnn_ws.models.settings import WithSettings, graph_setting
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
        groups: groups of every group norm, lowered to a divisor of its channels; in the head, to four channels a group.
        graph: what the first layer's neighbours are near in: `all` channels of a point, or its `coordinates`, the
            first 3. Later layers' are near in the features that the layer before made.

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
        graph: str = "all",
    ) -> None:
        super().__init__()
        head_norm = head_norm_word(norm, head_norm)
        self.edge_convs = EdgeConvs(in_channels, widths, k, norm, backend, graph, groups=groups)
        self.global_feature = GlobalFeature(self.edge_convs.out_channels, emb_dims, norm, backend, groups=groups)
        pooled = 2 * emb_dims  # maximum and mean
        self.head = Head(pooled, num_classes, hidden, norm, head_norm, parts=2, groups=groups, dropout=dropout)
        self.remember(k=k, norm=norm, head_norm=head_norm, groups=groups, **graph_setting(graph, in_channels))

    def pool(self, x: Tensor) -> Tensor:
        """Return what the head sees of each cloud: (B, in_channels, N) -> (B, 2 emb_dims)."""
        return self.global_feature(self.edge_convs(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(x))  # (B, 2 emb_dims) -> (B, num_classes)
