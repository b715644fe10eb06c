"""An EdgeConv on clouds of different sizes in one batch, ours or torch_geometric's: what `benchmark` times of them."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from dgcnn_ws.nn.graphs import edges_of, nearest_neighbours
from dgcnn_ws.nn.norm import make_layer, norm_kind
from dgcnn_ws.nn.pyg import EdgeConv

IN_CHANNELS = 64
CHANNELS = {"ragged": (64,), "ragged_deep": (64, 64)}  # of each mode's convolutions


def cloud_sizes(batch_size: int, num_points: int, fewest: int) -> list[int]:
    """Return the clouds' points: evenly from an eighth of num_points up to it, at least `fewest`, in a mixed order."""
    sizes = torch.linspace(num_points / 8, num_points, batch_size).round().long().clamp_min(fewest)
    return sizes[torch.randperm(batch_size, generator=torch.Generator().manual_seed(0))].tolist()


def clouds_of(sizes: list[int], k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return random features (P, C), the edges (2, E) from random points' k nearest, and each point's cloud (P,)."""
    num_points = sum(sizes)
    edge_index = torch.stack(edges_of(nearest_neighbours(torch.randn(num_points, 3), sizes, k)))
    return (
        torch.randn(num_points, IN_CHANNELS),
        edge_index,
        torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
    )


class NormOfEachCloud(nn.Module):
    """Normalise each cloud's edges by a norm over (B, C, *), for torch_geometric's layer: (E, C) -> (E, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.edges: list[int] = []  # of each cloud, told before each call

    def forward(self, edges: Tensor) -> Tensor:
        # As images whose channels lie last in memory, which torch's group norm takes without a copy.
        images = [part.T.unsqueeze(0).unsqueeze(3) for part in edges.split(self.edges)]
        return torch.cat([self.norm(image)[0, :, :, 0].T for image in images])


def make_edge_conv(mode: str, norm: str, groups: int, implementation: str) -> nn.Module:
    """Return the layer to time; torch_geometric's edge features are [x_i ; x_j − x_i], ours the other way round."""
    if implementation != "torch_geometric":
        return EdgeConv(IN_CHANNELS, CHANNELS[mode], norm, implementation, groups=groups)
    from torch_geometric.nn import EdgeConv as GeometricEdgeConv  # seconds to import, and few modes' alone

    layers: list[nn.Module] = []
    for c_in, c_out in pairwise((2 * IN_CHANNELS, *CHANNELS[mode])):
        linear, layer_norm = make_layer(norm, c_in, c_out, bias=False, groups=groups, dims=0)
        if not norm_kind(norm).uses_batch_statistics:
            layer_norm = NormOfEachCloud(layer_norm)
        layers += [linear, layer_norm, nn.LeakyReLU(0.2)]
    return GeometricEdgeConv(nn.Sequential(*layers), aggr="max")


def numbers_per_edge(mode: str) -> int:
    """Return how many numbers of each edge torch_geometric's layer holds at the same time.

    Features of both ends, their difference and both together; product, norm and activation of each convolution; and
    the last one's gradient.
    """
    return 5 * IN_CHANNELS + 3 * sum(CHANNELS[mode]) + CHANNELS[mode][-1]


def call(layer: nn.Module, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
    """Call either implementation's layer on clouds of as many neighbours for every point."""
    if isinstance(layer, EdgeConv):
        return layer(x, edge_index, batch)
    k = edge_index.shape[1] // len(x)
    edges = (torch.bincount(batch) * k).tolist()
    for module in layer.modules():
        if isinstance(module, NormOfEachCloud):
            module.edges = edges
    return layer(x, edge_index)
