"""DGCNN with a spatial transformer, the network of the Weight Standardization paper's ModelNet40 table."""

from typing import Any

import torch
from torch import Tensor, nn

from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.models.edge_convs import EdgeConvs
from dgcnn_ws.models.head import Head, head_norm_word
from dgcnn_ws.models.settings import WithSettings, graph_setting
from dgcnn_ws.nn.edge_conv import edge_features
from dgcnn_ws.nn.global_feature import GlobalFeature
from dgcnn_ws.nn.norm import make_layer, norm_kind

BATCH_NORM_EPS, GROUP_NORM_EPS = 1e-3, 1e-5
GROUPS = 16


def layer_settings(groups: int, eps: float) -> dict[str, Any]:
    """Return what the paper's layers have in common: ReLU, a bias, and their norm's settings."""
    return {"groups": groups, "act": nn.ReLU(), "bias": True, "eps": eps}


class TNet(nn.Module):
    """Predict a 3×3 alignment of each cloud from its first edge features; the identity before training.

    Shapes: (B, 3, N), (B, N, k) -> (B, 3, 3).
    """

    def __init__(self, norm: str, head_norm: str | None, backend: str, groups: int, eps: float) -> None:
        super().__init__()
        layer = layer_settings(groups, eps)
        edge_layers: list[nn.Module] = []
        for c_in, c_out in ((6, 64), (64, 128)):
            edge_layers += make_layer(norm, c_in, c_out, bias=True, groups=groups, eps=eps, dims=2)
            edge_layers += [nn.ReLU()]
        self.edge_layers = nn.Sequential(*edge_layers)
        self.global_feature = GlobalFeature(128, 1024, norm, backend, mean_pool=False, **layer)
        self.head = Head(1024, 9, (512, 256), norm, head_norm, **layer)
        last = self.head.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.eye(3).flatten())

    def forward(self, x: Tensor, idx: Tensor) -> Tensor:
        ops.check_types(x, next(self.edge_layers.parameters()))
        # The second convolution needs the edges themselves: only the first map of an edge MLP factors.
        points = self.edge_layers(edge_features(x, idx)).max(dim=3).values  # (B, 128, N)
        return self.head(self.global_feature(points)).view(-1, 3, 3)


def align(x: Tensor, tnet: TNet, k: int) -> Tensor:
    """Return x with each point's coordinates p, its first 3 channels, as p T: (B, C, N) -> (B, C, N)."""
    transform = tnet(x[:, :3], ops.knn(x[:, :3].transpose(1, 2), k))  # (B, 3, 3)
    # No matrix product: autocast would round coordinates, and so pick other neighbours.
    aligned = (transform.unsqueeze(3) * x[:, :3].unsqueeze(2)).sum(1)  # (B, 3, 3, N) -> (B, 3, N)
    return torch.cat([aligned, x[:, 3:]], dim=1)


class DGCNNTNet(WithSettings):
    """Classify point clouds with the network that the WS paper trained on ModelNet40.

    T-Net, then EdgeConvs with ReLU and bias, each on its own graph, a shared convolution, maximum over the points,
    512 and 256 hidden units with dropout 0.5. BatchNorm has eps 1e-3 there, group norm 16 groups and eps 1e-5.
    The fully connected layers had the same norm (`head_norm` `gn` or `bn`); left out, it is the norm's default here.
    Arguments and errors as for `DGCNN`; the first 3 of `in_channels` are the coordinates that the T-Net aligns.

    Shapes: (B, in_channels, N) -> (B, num_classes).
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
        widths: tuple[int, ...] = (64, 64, 64, 128),
        emb_dims: int = 1024,
        hidden: tuple[int, ...] = (512, 256),
        dropout: float = 0.5,
        groups: int = GROUPS,
        graph: str = "all",
    ) -> None:
        super().__init__()
        if in_channels < 3:
            raise InputError(f"in_channels={in_channels}, but the T-Net aligns 3 coordinates. Use 3 or more, or DGCNN.")
        head_norm = head_norm_word(norm, head_norm)
        eps = BATCH_NORM_EPS if norm_kind(norm).uses_batch_statistics else GROUP_NORM_EPS
        layer = layer_settings(groups, eps)
        self.k = k
        self.tnet = TNet(norm, head_norm, backend, groups, eps)
        self.edge_convs = EdgeConvs(in_channels, widths, k, norm, backend, graph, **layer)
        channels = self.edge_convs.out_channels
        self.global_feature = GlobalFeature(channels, emb_dims, norm, backend, mean_pool=False, **layer)
        self.head = Head(emb_dims, num_classes, hidden, norm, head_norm, dropout=dropout, **layer)
        self.remember(k=k, norm=norm, head_norm=head_norm, groups=groups, **graph_setting(graph, in_channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.edge_convs(align(x, self.tnet, self.k))  # (B, sum(widths), N)
        return self.head(self.global_feature(x))
