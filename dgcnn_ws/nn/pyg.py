"""EdgeConv with torch_geometric's calling conventions, for clouds of different sizes in one batch.

    EdgeConv(nn)(x, edge_index)                              torch_geometric's own arguments: an MLP over the edges
    DynamicEdgeConv(nn, k)(x, batch)                         on the k nearest neighbours, found here
    EdgeConv(in_channels, out_channels)(x, edge_index, batch)      or the arguments of `dgcnn_ws.EdgeConv`
    DynamicEdgeConv(in_channels, out_channels, k)(x, batch)

x is (P, C), the points of all clouds one after another; batch (P,) names each one's cloud, in any order. They stand in
`torch_geometric.nn.Sequential` and in models beside its layers, and need neither pyg-lib nor torch-cluster, nor
torch_geometric itself.

Of an `nn`, parameters and state dict are torch_geometric's, and so is the function; chains of Linear, BatchNorm and
ReLU or LeakyReLU (`nn.edge_mlp`) run without edges. Of channels, each cloud gives what the dense `dgcnn_ws.EdgeConv`
makes of it alone, and state dicts fit either: group norm normalises each cloud by itself, batch norm all edges.

Edges point from source j to target i (`source_to_target`). torch_geometric's message is nn([x_i ; x_j − x_i]); of
channels, the weight's columns come in the paper's other order, [x_j − x_i ; x_i].
"""

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn import Module  # a layer's own `nn` hides torch's in its annotations
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.backend import BACKENDS, negative_slope
from dgcnn_ws.nn.edge_conv import AGGREGATIONS, EdgeBlock, EdgeGroup
from dgcnn_ws.nn.edge_mlp import EdgeLayers, NotLayers, read_layers
from dgcnn_ws.nn.graphs import (
    check_batch,
    cloud_neighbours,
    cloud_numbers,
    cloud_order,
    cloud_sizes,
    edges_of,
    nearest_neighbours,
    nearest_sources,
    regular_graphs,
    sorted_edges,
)
from dgcnn_ws.nn.norm import Layer, affine_from_moments, needs_moments
from dgcnn_ws.nn.weight_standardization import effective_weight
from dgcnn_ws.ops import linear
from dgcnn_ws.ops.reference import compute_dtype

Points = Tensor | tuple[Tensor, Tensor]  # of sources and targets alike, or of each
Batches = Tensor | tuple[Tensor | None, Tensor | None] | None
IRREGULAR = "needs equally many neighbours for all points of a cloud, within the cloud"


class _GraphBlock(EdgeBlock):
    """An EdgeBlock on points (P, C): of channels, or with torch_geometric's `nn` in place of layers of its own."""

    nn: Callable[[Tensor], Tensor] | None
    in_channels: int | None

    def _of_channels(
        self,
        in_channels: int,
        out_channels: int | Sequence[int],
        norm: str | None = "ws_gn",
        backend: str = "auto",
        *,
        aggr: str = "max",
        groups: int = 16,
        act: Module | None = None,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(
            in_channels, out_channels, norm, backend, aggr=aggr, groups=groups, act=act, bias=bias, eps=eps
        )
        self.in_channels, self.nn = in_channels, None

    def _of_network(self, network: Any, aggr: str = "max", backend: str = "auto", **kwargs: Any) -> None:
        nn.Module.__init__(self)
        for name, value in kwargs.items():
            if (name, value) not in (("flow", "source_to_target"), ("node_dim", -2)):
                raise InputError(f"{name}={value!r} is not known here; torch_geometric's own layer takes it.")
        if aggr not in AGGREGATIONS:
            raise InputError(f"aggr {aggr!r} is unknown. Choose one of {', '.join(AGGREGATIONS)}.")
        if backend not in BACKENDS:
            raise InputError(f"backend {backend!r} is unknown. Choose one of {', '.join(BACKENDS)}.")
        self.in_channels, self.nn, self.aggr, self.backend = None, network, aggr, backend
        if backend == "fused":
            self._slopes()
        self.reset_parameters()  # as torch_geometric does: the same seed gives the same weights

    def reset_parameters(self) -> None:
        """Draw new weights, and start the norms anew."""
        for child in self.children():
            _reset(child)

    def layers(self) -> list[tuple[Layer, Module]]:
        return super().layers() if self.nn is None else read_layers(self.nn, self.aggr).layers

    def terms(self, points: Tensor) -> Tensor:
        if self.nn is None:
            return super().terms(points)
        first = self.layers()[0][0]
        W_i, W_j = effective_weight(first).chunk(2, dim=1)  # (C', C) each, of [x_i ; x_j − x_i]
        bias = first.bias
        if bias is not None:
            bias = torch.cat([torch.zeros_like(bias), bias])
        return linear(points, torch.cat([W_j, W_i - W_j]), bias)

    def _slopes(self) -> tuple[float, float] | None:
        """Return the slopes of the activations and of the last one; None where the block runs edge by edge."""
        if self.backend == "reference":
            return None
        if self.nn is None:
            slope = negative_slope(self.act)
            return None if slope is None else (slope, slope)
        try:
            found: EdgeLayers = read_layers(self.nn, self.aggr)
        except NotLayers as reason:
            if self.backend == "fused":
                raise InputError(f"backend 'fused' cannot take nn over: {reason}. Use backend 'auto'.") from None
            return None
        return found.slope, found.last_slope

    def _pair(self, x: Points) -> tuple[Tensor, Tensor]:
        """Return the points of sources and targets; the same tensor twice where they are the same."""
        pair = (x, x) if isinstance(x, Tensor) else x
        width = self.in_channels
        weight = next(self.parameters(), None)
        for points in pair:
            if points.dim() != 2 or (width and points.shape[1] != width) or not points.is_floating_point():
                raise InputError(
                    f"x is (points, {width or 'channels'}), floating; this one is {points.dtype} of shape "
                    f"{tuple(points.shape)}."
                )
            if (
                weight is not None
                and points.dtype != weight.dtype
                and not torch.is_autocast_enabled(points.device.type)
            ):
                raise InputError(f"x is {points.dtype} and the weights are {weight.dtype}; convert one of them.")
        return pair

    def _on_groups(self, points: Tensor, graphs: list[Tensor], slopes: tuple[float, float]) -> Tensor:
        """Run the block without edges on groups of clouds: (P, C) -> (P, C')."""
        parts = self.terms(points).split([idx.shape[0] * idx.shape[1] for idx in graphs])
        groups = [EdgeGroup(ab.unflatten(0, idx.shape[:2]), idx) for ab, idx in zip(parts, graphs, strict=True)]
        return torch.cat([out.flatten(0, 1) for out in self.without_edges(groups, *slopes)])

    def _on_graph(self, pair: tuple[Tensor, Tensor], sources: Tensor, targets: Tensor, batch: Tensor | None) -> Tensor:
        """Run the block on every edge of any graph: (P, C), (Q, C) -> (Q, C'); 0 where no edge ends.

        Args:
            sources, targets: (E,), in any order.
            batch: (Q,), the targets' clouds, in any order; a cloud's statistics are those of the edges that end in it.
        """
        y = self._messages(pair, sources, targets, batch)
        size = (len(pair[1]), y.shape[1])
        if self.aggr == "max":
            rows = targets.unsqueeze(1).expand_as(y)
            # Backward, torch 2.13 gives what was there before a share where it equals the maximum: zeros would take it.
            start = y.new_full(size, -torch.inf) if y.is_floating_point() else y.new_zeros(size)
            out = start.scatter_reduce(0, rows, y, "amax", include_self=False)
            reached = torch.zeros(size[0], dtype=torch.bool, device=y.device).index_fill(0, targets, True)
            return torch.where(reached.unsqueeze(1), out, out.new_zeros(()))
        values = y.to(compute_dtype(y))
        out = values.new_zeros(size).index_add(0, targets, values)
        if self.aggr == "mean":
            out = out / counts_of(targets, size[0]).clamp_min(1).unsqueeze(1)
        return out.to(y.dtype)

    def _messages(self, pair: tuple[Tensor, Tensor], sources: Tensor, targets: Tensor, batch: Tensor | None) -> Tensor:
        """Return what each edge carries (E, C')."""
        if self.nn is not None:
            x_i, x_j = pair[1].index_select(0, targets), pair[0].index_select(0, sources)
            return self.nn(torch.cat([x_i, x_j - x_i], dim=-1))
        y = self._first_layer(pair, sources, targets)
        numbers = cloud_numbers(batch, len(pair[1]), y.device)
        # As many rows as there can be clouds, where the compiler cannot look how many there are.
        if batch is None or not len(numbers):
            count = 1
        else:
            count = len(batch) if torch.compiler.is_compiling() else int(numbers.max()) + 1
        for conv, norm in self.layers():
            if conv is not self.conv:
                y = F.linear(y, effective_weight(conv).flatten(1), conv.bias)
            y = self.act(_normalise(norm, y, numbers.index_select(0, targets), count))
        return y

    def _first_layer(self, pair: tuple[Tensor, Tensor], sources: Tensor, targets: Tensor) -> Tensor:
        a, b = self.terms(pair[0]).chunk(2, dim=1)
        if pair[1] is not pair[0]:
            b = self.terms(pair[1]).chunk(2, dim=1)[1]
        return a.index_select(0, sources) + b.index_select(0, targets)

    def _pools_all_edges(self) -> bool:
        """Return whether no statistic is of one cloud alone."""
        norms = [norm for _, norm in self.layers()]
        return all(isinstance(norm, (nn.Identity, nn.modules.batchnorm._BatchNorm)) for norm in norms)


def _is_network(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    return "nn" in kwargs or bool(args and callable(args[0]))


def _reset(module: nn.Module) -> None:
    reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
        return
    for child in module.children():
        _reset(child)


def counts_of(numbers: Tensor, size: int) -> Tensor:
    """Return how often each of 0 to size − 1 is among numbers (E,): (size,) int64, exact, unlike a sum of floats."""
    return numbers.new_zeros(size).index_add(0, numbers, torch.ones_like(numbers))


def _normalise(norm: nn.Module, y: Tensor, clouds: Tensor, count: int) -> Tensor:
    """Normalise edges (E, C), each one's cloud (E,) being a number below `count`."""
    if isinstance(norm, nn.Identity):
        return y
    values = y.to(compute_dtype(y))
    edges = counts_of(clouds, count)
    mean = var = values.new_zeros(count, y.shape[1])
    if needs_moments(norm):
        share = edges.clamp_min(1).unsqueeze(1)
        mean = mean.index_add(0, clouds, values) / share
        var = var.index_add(0, clouds, (values - mean.index_select(0, clouds)).square()) / share
    scale, shift = affine_from_moments(norm, mean, var, edges)
    return (values * scale.index_select(0, clouds) + shift.index_select(0, clouds)).to(y.dtype)


class EdgeConv(_GraphBlock):
    """EdgeConv on a given graph: the maximum over the edges that end in i of act(norm(W [x_j − x_i ; x_i])).

    `torch_geometric.nn.EdgeConv`'s arguments, `EdgeConv(nn, aggr="max")`, or those of the dense `dgcnn_ws.EdgeConv`
    under its conventions. Where every point of a cloud has equally many neighbours, all in the cloud, as in a kNN
    graph, no edge is stored; any other graph is computed edge by edge, as is an `nn` that is no chain of Linear, batch
    norm and ReLU or LeakyReLU of one slope. A point where no edge ends gives 0.

    Args:
        nn: maps edges (E, 2C) to (E, C'): an MLP, a Sequential, any callable. Weights are drawn anew, as there.
        in_channels: C, channels of a point.
        out_channels: C', or the channels of several convolutions (see `dgcnn_ws.EdgeConv`, also for the rest).
        aggr: `max`, `mean` or `add`.
        backend: `auto`; `reference` for edge by edge; `fused` refuses what needs that.

    Shapes:
        x: (P, C), or (x_source, x_target) of (P, C) and (Q, C), computed edge by edge unless they are one tensor.
        edge_index: (2, E), sources above targets, in any order.
        batch: (Q,), the targets' clouds; without it all are one cloud, which matters to group norms alone.
        Returns (Q, C').

    Raises InputError for a wrong word, shape, type or point number.
    """

    @overload
    def __init__(self, nn: Callable[[Tensor], Tensor], aggr: str = "max", backend: str = "auto") -> None: ...
    @overload
    def __init__(
        self,
        in_channels: int,
        out_channels: int | Sequence[int],
        norm: str | None = "ws_gn",
        backend: str = "auto",
        *,
        aggr: str = "max",
        groups: int = 16,
        act: Module | None = None,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if _is_network(args, kwargs):
            self._of_network(*_network_first(args, kwargs), **kwargs)
        else:
            self._of_channels(*args, **kwargs)

    def forward(self, x: Points, edge_index: Tensor, batch: Tensor | None = None) -> Tensor:
        pair = self._pair(x)
        check_batch(batch, len(pair[1]))
        sources, targets = sorted_edges(edge_index, len(pair[0]), len(pair[1]))
        slopes = self._slopes()
        if slopes is not None and pair[0] is pair[1] and len(targets) and not torch.compiler.is_compiling():
            order = cloud_order(batch)
            if order is not None and batch is not None:
                places = order[1][torch.stack([sources, targets])]
                return self.forward(pair[0][order[0]], places, batch[order[0]])[order[1]]
            graphs = regular_graphs(sources, targets, cloud_sizes(batch, len(pair[1])))
            if graphs is not None:
                return self._on_groups(pair[0], graphs, slopes)
        if self.backend == "fused" and len(targets):
            raise InputError(f"backend 'fused' {IRREGULAR}. Use backend 'auto'.")
        return self._on_graph(pair, sources, targets, batch)


class DynamicEdgeConv(_GraphBlock):
    """EdgeConv on the k nearest neighbours in x, found in each cloud by itself, the point itself included.

    `torch_geometric.nn.DynamicEdgeConv`'s arguments, `DynamicEdgeConv(nn, k, aggr="max")`, or those of the dense
    `dgcnn_ws.EdgeConv` under its conventions: see `EdgeConv` here. A cloud of fewer than k points has all of them for
    neighbours, as in torch_geometric.

    Shapes:
        x: (P, C), or (x_source, x_target) of (P, C) and (Q, C): each target's neighbours are sources.
        batch: (P,), in any order, or a pair of vectors; without it all are one cloud.
        Returns (P, C'), or (Q, C').

    Raises InputError for a wrong word, shape or type.
    """

    @overload
    def __init__(
        self, nn: Callable[[Tensor], Tensor], k: int, aggr: str = "max", num_workers: int = 1, backend: str = "auto"
    ) -> None: ...
    @overload
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
        act: Module | None = None,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None: ...
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if _is_network(args, kwargs):
            self._dynamic(*_network_first(args, kwargs), **kwargs)
        else:
            self._dynamic_of_channels(*args, **kwargs)

    def _dynamic(self, network: Any, k: int, aggr: str = "max", num_workers: int = 1, **kwargs: Any) -> None:
        self._of_network(network, aggr, **kwargs)
        self.k = k

    def _dynamic_of_channels(
        self, in_channels: int, out_channels: int | Sequence[int], k: int = 20, *args: Any, **kwargs: Any
    ) -> None:
        self._of_channels(in_channels, out_channels, *args, **kwargs)
        self.k = k

    def extra_repr(self) -> str:
        return f"k={self.k}, {super().extra_repr()}"

    def forward(self, x: Points, batch: Batches = None) -> Tensor:
        pair = self._pair(x)
        batches = batch if isinstance(batch, (tuple, list)) else (batch, batch)
        for part, points in zip(batches, pair, strict=True):
            check_batch(part, len(points))
        same = pair[0] is pair[1] and batches[0] is batches[1]
        if torch.compiler.is_compiling() and not (same and batches[0] is None):
            return self._compiled(pair, *batches, same)
        if len(pair[1]) == 0:
            none = torch.empty(0, dtype=torch.long, device=pair[1].device)
            return self._on_graph(pair, none, none, None)
        for side, part in enumerate(batches):
            order = cloud_order(part)
            if order is not None and part is not None:
                return self._sorted(pair, batches, side, order, same)
        if not same:
            edges = nearest_sources(pair[0].detach(), pair[1].detach(), *batches, self.k)
            return self._on_graph(pair, *edges, batches[1])
        graphs = nearest_neighbours(pair[0].detach(), cloud_sizes(batches[0], len(pair[0])), self.k)
        slopes = self._slopes()
        if slopes is None:
            return self._on_graph(pair, *edges_of(graphs), batches[0])
        return self._on_groups(pair[0], graphs, slopes)

    def _sorted(
        self,
        pair: tuple[Tensor, Tensor],
        batches: tuple[Tensor | None, Tensor | None],
        side: int,
        order: tuple[Tensor, Tensor],
        same: bool,
    ) -> Tensor:
        """Run with a side's points ordered by cloud, and return the targets in their own order."""
        points, part = pair[side][order[0]], batches[side]
        assert part is not None
        if same:
            return self.forward(points, part[order[0]])[order[1]]
        both = [*zip(pair, batches, strict=True)]
        both[side] = points, part[order[0]]
        (x, x_batch), (y, y_batch) = both
        out = self.forward((x, y), (x_batch, y_batch))
        return out[order[1]] if side == 1 else out

    def _compiled(
        self, pair: tuple[Tensor, Tensor], source_batch: Tensor | None, target_batch: Tensor | None, same: bool
    ) -> Tensor:
        """Run with k neighbours for every point, where the compiler must know all shapes beforehand."""
        others = None if same else pair[1].detach(), None if same else target_batch
        idx = cloud_neighbours(pair[0].detach(), others[0], source_batch, others[1], self.k)
        slopes = self._slopes()
        if same and slopes is not None and self._pools_all_edges():
            return self._on_groups(pair[0], [idx.unsqueeze(0)], slopes)
        targets = torch.arange(len(idx), device=idx.device).repeat_interleave(self.k)
        return self._on_graph(pair, idx.flatten(), targets, target_batch)


def _network_first(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    return (kwargs.pop("nn"), *args) if "nn" in kwargs else args
