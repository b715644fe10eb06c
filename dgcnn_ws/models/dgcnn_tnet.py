"""DGCNN with a spatial transformer, the network of the Weight Standardization paper's ModelNet40 table."""

import torch
from torch import Tensor, nn

from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.models.head import Head, default_head_norm
from dgcnn_ws.models.settings import WithSettings
from dgcnn_ws.nn.edge_conv import EdgeConv, edge_features
from dgcnn_ws.nn.global_feature import GlobalFeature
from dgcnn_ws.nn.norm import make_layer, norm_kind

BATCH_NORM_EPS, GROUP_NORM_EPS = 1e-3, 1e-5
GROUPS = 16


class TNet(nn.Module):
    """Predict a 3×3 alignment of each cloud from its first edge features; the identity before training.

    Shapes: (B, 3, N), (B, N, k) -> (B, 3, 3).
    """

    def __init__(self, norm: str, head_norm: str | None, backend: str, groups: int, eps: float) -> None:
        super().__init__()
        edge_layers: list[nn.Module] = []
        for c_in, c_out in ((6, 64), (64, 128)):
            edge_layers += make_layer(norm, c_in, c_out, bias=True, groups=groups, eps=eps, dims=2)
            edge_layers += [nn.ReLU()]
        self.edge_layers = nn.Sequential(*edge_layers)
        self.global_feature = GlobalFeature(
            128, 1024, norm, backend, groups=groups, act=nn.ReLU(), bias=True, eps=eps, mean_pool=False
        )
        self.head = Head(
            1024,
            9,
            (512, 256),
            norm,
            head_norm,
            parts=1,
            groups=groups,
            act=nn.ReLU(),
            bias=(True, True),
            dropout=(0.0, 0.0),
            eps=eps,
        )
        last = self.head.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.eye(3).flatten())

    def forward(self, x: Tensor, idx: Tensor) -> Tensor:
        # The second convolution needs the edges themselves: only the first map of an edge MLP factors.
        points = self.edge_layers(edge_features(x, idx)).max(dim=3).values  # (B, 128, N)
        return self.head(self.global_feature(points)).view(-1, 3, 3)


def align(x: Tensor, transform: Tensor) -> Tensor:
    """Return x with each point's coordinates p, its first 3 channels, as p T: (B, C, N), (B, 3, 3) -> (B, C, N)."""
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
    ) -> None:
        super().__init__()
        if in_channels < 3:
            raise InputError(f"in_channels={in_channels}, but the T-Net aligns 3 coordinates. Use 3 or more, or DGCNN.")
        head_norm = default_head_norm(norm) if head_norm is None else head_norm
        eps = BATCH_NORM_EPS if norm_kind(norm).uses_batch_statistics else GROUP_NORM_EPS
        self.k = k
        self.tnet = TNet(norm, head_norm, backend, groups, eps)
        self.edge_convs = nn.ModuleList(
            EdgeConv(c_in, c_out, k, norm, backend, groups=groups, act=nn.ReLU(), bias=True, eps=eps)
            for c_in, c_out in zip((in_channels, *widths), widths, strict=False)
        )
        self.global_feature = GlobalFeature(
            sum(widths),
            emb_dims,
            norm,
            backend,
            groups=groups,
            act=nn.ReLU(),
            bias=True,
            eps=eps,
            mean_pool=False,
        )
        self.head = Head(
            emb_dims,
            num_classes,
            hidden,
            norm,
            head_norm,
            parts=1,
            groups=groups,
            act=nn.ReLU(),
            bias=(True,) * len(hidden),
            dropout=(dropout,) * len(hidden),
            eps=eps,
        )
        self.remember(k=k, norm=norm, head_norm=head_norm, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        x = align(x, self.tnet(x[:, :3], ops.knn(x[:, :3].transpose(1, 2), self.k)))
        features = []
        for edge_conv in self.edge_convs:
            x = edge_conv(x)
            features.append(x.transpose(1, 2))
        x = torch.cat(features, dim=2).transpose(1, 2)  # (B, sum(widths), N)
        return self.head(self.global_feature(x))
