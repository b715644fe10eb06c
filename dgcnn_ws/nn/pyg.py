"""EdgeConv with torch_geometric's calling conventions, for clouds of different sizes in one batch.

    EdgeConv(in_channels, out_channels)(x, edge_index, batch)      on a graph that is given
    DynamicEdgeConv(in_channels, out_channels, k)(x, batch)        on the k nearest neighbours, found here

x is (P, C), the points of all clouds one after another; batch (P,) names each one's cloud. They stand in
`torch_geometric.nn.Sequential` and in models beside its layers, and need neither pyg-lib nor torch-cluster, nor
torch_geometric itself. Each cloud gives what the dense `dgcnn_ws.EdgeConv` makes of it alone, and state dicts fit
either: group norm normalises each cloud by itself, batch norm all edges of the batch.

Edges point from source j to target i (`source_to_target`). torch_geometric's message is nn([x_i ; x_j − x_i]); here
the weight's columns come in the paper's other order, [x_j − x_i ; x_i].
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.backend import negative_slope
from dgcnn_ws.nn.edge_conv import EdgeBlock, EdgeGroup
from dgcnn_ws.nn.graphs import cloud_sizes, edges_of, nearest_neighbours, nearest_sources, regular_graphs, sorted_edges
from dgcnn_ws.nn.norm import affine_from_moments, needs_moments
from dgcnn_ws.nn.weight_standardization import effective_weight
from dgcnn_ws.ops.reference import compute_dtype

Points = Tensor | tuple[Tensor, Tensor]  # of sources and targets alike, or of each


class _GraphBlock(EdgeBlock):
    """An EdgeBlock on points (P, C)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int | Sequence[int],
        norm: str | None = "ws_gn",
        backend: str = "auto",
        *,
        aggr: str = "max",
        groups: int = 16,
        act: nn.Module | None = None,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(
            in_channels, out_channels, norm, backend, aggr=aggr, groups=groups, act=act, bias=bias, eps=eps
        )
        self.in_channels = in_channels

    def reset_parameters(self) -> None:
        """Draw new weights, and start the norms anew."""
        for module in self.modules():
            reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
            if module is not self and reset is not None:
                reset()

    def _pair(self, x: Points) -> tuple[Tensor, Tensor]:
        """Return the points of sources and targets; the same tensor twice where they are the same."""
        pair = (x, x) if isinstance(x, Tensor) else x
        for points in pair:
            if points.dim() != 2 or points.shape[1] != self.in_channels or not points.is_floating_point():
                raise InputError(
                    f"x is (points, {self.in_channels}), floating; this one is {points.dtype} of shape "
                    f"{tuple(points.shape)}."
                )
        return pair

    def _zeros(self, points: Tensor) -> Tensor:
        """Return the outputs (P, C') of points where no edge ends."""
        return points.new_zeros(len(points), len(self.layers()[-1][0].weight))

    def _on_groups(self, points: Tensor, graphs: list[Tensor], slope: float) -> Tensor:
        """Run the block without edges on groups of clouds: (P, C) -> (P, C')."""
        parts = self.terms(points).split([idx.shape[0] * idx.shape[1] for idx in graphs])
        groups = [EdgeGroup(ab.unflatten(0, idx.shape[:2]), idx) for ab, idx in zip(parts, graphs, strict=True)]
        return torch.cat([out.flatten(0, 1) for out in self.without_edges(groups, slope)])

    def _on_graph(self, pair: tuple[Tensor, Tensor], sources: Tensor, targets: Tensor, sizes: list[int]) -> Tensor:
        """Run the block on every edge of any graph: (P, C), (Q, C) -> (Q, C'); 0 where no edge ends.

        Args:
            sources, targets: (E,), ordered by target.
            sizes: how many targets each cloud has; its statistics are those of the edges that end in it.
        """
        if not len(sources):
            return self._zeros(pair[1])
        degrees = torch.bincount(targets, minlength=len(pair[1]))
        edges = [count for part in degrees.split(sizes) if (count := int(part.sum()))]
        y = self._first_layer(pair, sources, targets)
        for conv, norm in self.layers():
            if conv is not self.conv:
                y = F.linear(y, effective_weight(conv).flatten(1), conv.bias)
            y = self.act(_normalise(norm, y, edges))
        shape = len(pair[1]), y.shape[1]
        if self.aggr == "mean":
            return y.new_zeros(shape).index_add(0, targets, y) / degrees.clamp_min(1).unsqueeze(1)
        return y.new_zeros(shape).scatter_reduce(0, targets.unsqueeze(1).expand_as(y), y, "amax", include_self=False)

    def _first_layer(self, pair: tuple[Tensor, Tensor], sources: Tensor, targets: Tensor) -> Tensor:
        a, b = self.terms(pair[0]).chunk(2, dim=1)
        if pair[1] is not pair[0]:
            b = self.terms(pair[1]).chunk(2, dim=1)[1]
        return a.index_select(0, sources) + b.index_select(0, targets)


def _normalise(norm: nn.Module, y: Tensor, edges: list[int]) -> Tensor:
    """Normalise edges (E, C), so many of each cloud one after another."""
    if isinstance(norm, nn.Identity):
        return y
    clouds = y.split(edges)
    if needs_moments(norm):
        moments = [torch.var_mean(cloud.to(compute_dtype(y)), dim=0, correction=0) for cloud in clouds]
        var, mean = (torch.stack(parts) for parts in zip(*moments, strict=True))
    else:
        mean = var = y.new_zeros(len(clouds), y.shape[1], dtype=compute_dtype(y))
    counts = torch.tensor(edges, device=y.device)
    scale, shift = affine_from_moments(norm, mean, var, counts)
    return torch.cat([cloud * scale[i] + shift[i] for i, cloud in enumerate(clouds)])


class EdgeConv(_GraphBlock):
    """EdgeConv on a given graph: the maximum over the edges that end in i of act(norm(W [x_j − x_i ; x_i])).

    The dense `dgcnn_ws.EdgeConv` under `torch_geometric.nn.EdgeConv`'s conventions, arguments as there. Where every
    point of a cloud has equally many neighbours, all in the cloud, as in a kNN graph, no edge is stored; any other
    graph is computed edge by edge. A point where no edge ends gives 0.

    Args:
        in_channels: C, channels of a point.
        out_channels: C', or the channels of several convolutions (see `dgcnn_ws.EdgeConv`, also for the rest).
        backend: `auto`; `reference` for edge by edge; `fused` refuses graphs that need that.

    Shapes:
        x: (P, C), or (x_source, x_target) of (P, C) and (Q, C), computed edge by edge unless they are one tensor.
        edge_index: (2, E), sources above targets, in any order.
        batch: (Q,), the targets' clouds, ascending; without it all are one cloud, which matters to group norms alone.
        Returns (Q, C').

    Raises InputError for a wrong word, shape, type or point number.
    """

    def forward(self, x: Points, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        pair = self._pair(x)
        sizes = cloud_sizes(batch, len(pair[1]))
        sources, targets = sorted_edges(edge_index, len(pair[0]), len(pair[1]))
        if len(targets) == 0:
            return self._zeros(pair[1])
        slope = negative_slope(self.act)
        if self.backend != "reference" and slope is not None:
            graphs = regular_graphs(sources, targets, sizes) if pair[0] is pair[1] else None
            if graphs is not None:
                return self._on_groups(pair[0], graphs, slope)
            if self.backend == "fused":
                raise InputError(
                    "backend 'fused' needs equally many neighbours for all points of a cloud, within the cloud. "
                    "Use backend 'auto'."
                )
        return self._on_graph(pair, sources, targets, sizes)


class DynamicEdgeConv(_GraphBlock):
    """EdgeConv on the k nearest neighbours in x, found in each cloud by itself, the point itself included.

    The dense `dgcnn_ws.EdgeConv` under `torch_geometric.nn.DynamicEdgeConv`'s conventions, arguments as there. A
    cloud of fewer than k points has all of them for neighbours, as in torch_geometric.

    Shapes:
        x: (P, C), or (x_source, x_target) of (P, C) and (Q, C): each target's neighbours are sources.
        batch: (P,), ascending, or a pair of vectors; without it all are one cloud.
        Returns (P, C'), or (Q, C').

    Raises InputError for a wrong word, shape or type.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | Sequence[int],
        k: int = 20,
        norm: str | None = "ws_gn",
        backend: str = "auto",
        *,
        aggr: str = "max",
        groups: int = 16,
        act: nn.Module | None = None,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(
            in_channels, out_channels, norm, backend, aggr=aggr, groups=groups, act=act, bias=bias, eps=eps
        )
        self.k = k

    def extra_repr(self) -> str:
        return f"k={self.k}, {super().extra_repr()}"

    def forward(self, x: Points, batch: Tensor | tuple[Tensor | None, Tensor | None] | None = None) -> Tensor:
        pair = self._pair(x)
        if len(pair[1]) == 0:
            return self._zeros(pair[1])
        source_batch, target_batch = (batch, batch) if batch is None or isinstance(batch, Tensor) else batch
        sizes = cloud_sizes(target_batch, len(pair[1]))
        if pair[0] is not pair[1] or source_batch is not target_batch:
            cloud_sizes(source_batch, len(pair[0]))
            sources, targets = nearest_sources(pair[0].detach(), pair[1].detach(), source_batch, target_batch, self.k)
            return self._on_graph(pair, sources, targets, sizes)
        graphs = nearest_neighbours(pair[0].detach(), sizes, self.k)
        slope = negative_slope(self.act)
        if self.backend == "reference" or slope is None:
            return self._on_graph(pair, *edges_of(graphs), sizes)
        return self._on_groups(pair[0], graphs, slope)
