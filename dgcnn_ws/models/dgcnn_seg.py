"""DGCNN for part segmentation as it is used today (https://arxiv.org/abs/1801.07829)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.models.dgcnn import GROUPS
from dgcnn_ws.models.dgcnn_tnet import GROUP_NORM_EPS, TNet, align
from dgcnn_ws.models.edge_convs import EdgeConvs
from dgcnn_ws.models.head import head_norm_word, pooled_norm
from dgcnn_ws.models.settings import WithSettings, graph_setting
from dgcnn_ws.nn.global_feature import GlobalFeature
from dgcnn_ws.nn.norm import LEAST_OF_A_VECTOR, legal_groups, make_layer, norm_kind
from dgcnn_ws.nn.point_conv import PointConv

CATEGORY_CHANNELS = 64


class DGCNNSeg(WithSettings):
    """Say of each point which part it belongs to: EdgeConvs, one pooled vector, and a head on every point.

    The head sees, at each point, the cloud's pooled vector, 64 channels made of the cloud's category where that is
    known, and the outputs of all EdgeConvs there. What all points share enters it once for a cloud (`PointConv`).

    Args:
        num_parts: number of logits at each point.
        k: neighbours of a point in each layer's graph, itself included.
        norm: `ws_gn` · `gn` · `ws_bn` · `bn` · `ws_bcn`, for every layer on edges and points but the last.
        head_norm: what normalises a cloud's vectors, which have one value per channel and cloud. `est`: the pooled
            vector by running estimates; `gn`, `ln`: in groups, or as a whole; `none`; `bn`: the category's channels
            by batch norm, as published. None: the norm's default.
        backend: `auto` · `fused` · `reference` (see `EdgeConv`).
        num_categories: number of categories of clouds; 0 where the category is not an input.
        tnet: align each cloud first, by the T-Net of `DGCNNTNet`.
        in_channels: channels of a point, 3 for coordinates; a T-Net aligns the first 3.
        widths: output channels of the convolutions in each EdgeConv.
        emb_dims: channels of the shared convolution before pooling.
        hidden: channels of the head's hidden layers.
        dropout: probability after each hidden layer but the last.
        groups: groups of every group norm, lowered to a divisor of its channels; of a vector, to four channels a group.
        graph: as for `DGCNN`.

    Shapes: x (B, in_channels, N), category (B,) integers -> (B, num_parts, N). Raises InputError where N < k, and
    where a category is missing or not expected.
    """

    def __init__(
        self,
        num_parts: int = 50,
        k: int = 40,
        norm: str = "ws_gn",
        head_norm: str | None = None,
        backend: str = "auto",
        *,
        num_categories: int = 0,
        tnet: bool = False,
        in_channels: int = 3,
        widths: tuple[tuple[int, ...], ...] = ((64, 64), (64, 64), (64,)),
        emb_dims: int = 1024,
        hidden: tuple[int, ...] = (256, 256, 128),
        dropout: float = 0.5,
        groups: int = GROUPS,
        graph: str = "all",
    ) -> None:
        super().__init__()
        head_norm = head_norm_word(norm, head_norm)
        if tnet and in_channels < 3:
            raise InputError(f"in_channels={in_channels}, but the T-Net aligns 3 coordinates. Use 3 or more, or none.")
        self.k, self.num_categories = k, num_categories
        self.tnet = TNet(norm, head_norm, backend, groups, GROUP_NORM_EPS) if tnet else None
        self.edge_convs = EdgeConvs(in_channels, widths, k, norm, backend, graph, groups=groups)
        channels = self.edge_convs.out_channels
        self.global_feature = GlobalFeature(channels, emb_dims, norm, backend, groups=groups, mean_pool=False)
        grouped = nn.GroupNorm(legal_groups(groups, emb_dims, LEAST_OF_A_VECTOR), emb_dims)
        self.pooled_norm = grouped if head_norm == "gn" else pooled_norm(head_norm, emb_dims)
        self.category = self._category_layers(norm, head_norm) if num_categories else None
        shared = emb_dims + (CATEGORY_CHANNELS if num_categories else 0)
        self.point_convs = nn.ModuleList(
            PointConv(c_in, c_out, shared if i == 0 else 0, norm, backend, groups=groups)
            for i, (c_in, c_out) in enumerate(zip((channels, *hidden), hidden, strict=False))
        )
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv1d((channels, *hidden)[-1], num_parts, 1, bias=False)
        self.remember(k=k, norm=norm, head_norm=head_norm, groups=groups, **graph_setting(graph, in_channels))

    def _category_layers(self, norm: str, head_norm: str) -> nn.Sequential:
        if head_norm != "bn":  # a norm within the cloud would have one value per channel to work on
            return nn.Sequential(nn.Linear(self.num_categories, CATEGORY_CHANNELS), nn.LeakyReLU(0.2))
        word = "ws_bn" if norm_kind(norm).standardized else "bn"
        layer = make_layer(word, self.num_categories, CATEGORY_CHANNELS, bias=False, groups=1, dims=0)
        return nn.Sequential(*layer, nn.LeakyReLU(0.2))

    def forward(self, x: Tensor, category: Tensor | None = None) -> Tensor:
        if self.tnet is not None:
            x = align(x, self.tnet, self.k)
        x = self.edge_convs(x)  # (B, sum of widths, N)
        shared = self._shared(self.global_feature(x), category)
        for i, point_conv in enumerate(self.point_convs):
            x = point_conv(x, shared if i == 0 else None)
            if i < len(self.point_convs) - 1:
                x = self.dropout(x)
        return self.last(x)  # (B, num_parts, N)

    def _shared(self, pooled: Tensor, category: Tensor | None) -> Tensor:
        """Return what all points of a cloud see: (B, emb_dims), and 64 more channels with a category."""
        pooled = self.pooled_norm(pooled)
        if self.category is None:
            if category is not None:
                raise InputError("A category was given to a network without categories; make it with num_categories.")
            return pooled
        if category is None or category.shape != pooled.shape[:1]:
            given = "none was given" if category is None else f"this one has shape {tuple(category.shape)}"
            raise InputError(f"This network takes a category for each of {len(pooled)} clouds; {given}.")
        one_hot = F.one_hot(category.long(), self.num_categories).to(pooled.dtype)
        return torch.cat([pooled, self.category(one_hot)], dim=1)
