"""Clouds of different sizes one after another, and graphs over them as lists of edges: torch_geometric's layout.

Points are (P, C), with a vector (P,) that names each one's cloud. An edge list is (2, E), sources above targets.
A block works on groups: consecutive clouds of one size, each point of which has the same number of neighbours.
"""

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor

from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.ops.reference import compute_dtype

ROW_ENTRIES = 2**20  # of a block of distances


def check_batch(batch: Tensor | None, num_points: int) -> None:
    """Raise InputError where `batch` is not a vector of num_points integers."""
    if batch is not None and (batch.shape != (num_points,) or batch.dtype not in (torch.int64, torch.int32)):
        raise InputError(
            f"batch names each point's cloud by a whole number; for {num_points} points it cannot be {batch.dtype} "
            f"of shape {tuple(batch.shape)}."
        )


def cloud_order(batch: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """Return the order (P,) that puts each cloud's points together, and their places in it; None where they are."""
    if batch is None or not (batch[1:] < batch[:-1]).any():
        return None
    order = torch.sort(batch, stable=True).indices
    return order, torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))


def cloud_sizes(batch: Tensor | None, num_points: int) -> list[int]:
    """Return how many points each cloud of an ascending batch has, in order; without `batch` all are one cloud."""
    if batch is None:
        return [num_points]
    sizes: list[int] = torch.unique_consecutive(batch, return_counts=True)[1].tolist()
    return sizes


def cloud_numbers(batch: Tensor | None, num_points: int, device: torch.device) -> Tensor:
    """Return each point's cloud (P,), numbered from 0 without gaps; points may come in any order."""
    if batch is None:
        return torch.zeros(num_points, dtype=torch.long, device=device)
    ascending, order = torch.sort(batch)
    ranks = torch.cat([ascending.new_zeros(1), (ascending[1:] != ascending[:-1]).to(batch.dtype)]).cumsum(0)
    return torch.zeros_like(order).scatter(0, order, ranks[:num_points])


@torch.library.custom_op("dgcnn_ws::cloud_neighbours", mutates_args=())
def cloud_neighbours(
    sources: Tensor, targets: Tensor | None, source_batch: Tensor | None, target_batch: Tensor | None, k: int
) -> Tensor:
    """Return the numbers (Q, k) of each target's k nearest sources in its cloud: one operator to torch's compiler.

    Args:
        sources, targets: (P, C), (Q, C); None for the sources themselves.
        source_batch, target_batch: each point's cloud, in any order; None where there is one cloud alone.

    Raises InputError where a cloud has fewer than k sources: that the result has k of each is what the compiler knows.
    """
    same = targets is None
    if targets is None:
        targets, target_batch = sources, source_batch
    order, target_order = cloud_order(source_batch), cloud_order(target_batch)
    if order is not None and source_batch is not None:
        sources, source_batch = sources[order[0]], source_batch[order[0]]
    if target_order is not None and target_batch is not None:
        targets, target_batch = targets[target_order[0]], target_batch[target_order[0]]
    if same:
        found, _ = edges_of(nearest_neighbours(sources, cloud_sizes(source_batch, len(sources)), k))
    else:
        found, _ = nearest_sources(sources, targets, source_batch, target_batch, k)
    if len(found) != k * len(targets):
        raise InputError(f"A compiled or exported DynamicEdgeConv needs k={k} points in every cloud; one has fewer.")
    if order is not None:
        found = order[0][found]
    found = found.view(-1, k)
    return found if target_order is None else found[target_order[1]]


@cloud_neighbours.register_fake
def _(
    sources: Tensor, targets: Tensor | None, source_batch: Tensor | None, target_batch: Tensor | None, k: int
) -> Tensor:
    return sources.new_empty((len(sources if targets is None else targets), k), dtype=torch.int64)


def nearest_neighbours(points: Tensor, sizes: list[int], k: int) -> list[Tensor]:
    """Return the graph (B, N, k) of each group; a cloud of fewer than k points has all of them for neighbours."""
    graphs, start = [], 0
    for size, clouds in _runs(sizes):
        stop = start + clouds * size
        graphs.append(ops.knn(points[start:stop].unflatten(0, (clouds, size)), min(k, size)))
        start = stop
    return graphs


def nearest_sources(
    sources: Tensor, targets: Tensor, source_batch: Tensor | None, target_batch: Tensor | None, k: int
) -> tuple[Tensor, Tensor]:
    """Return the edges (E,), (E,) that reach each target from its k nearest sources, or all if its cloud has fewer.

    Args:
        sources, targets: (P, C), (Q, C).
        source_batch, target_batch: each point's cloud, ascending; None where there is one cloud alone.

    Raises InputError where only one of the two has several clouds.
    """
    if k < 1:
        raise InputError(f"k={k} neighbours make no graph; k is at least 1.")
    if source_batch is None or target_batch is None:
        for name, batch in (("sources", source_batch), ("targets", target_batch)):
            if batch is not None and (batch[1:] != batch[:-1]).any():
                raise InputError(
                    f"batch names the clouds of the {name} alone: give it for sources and targets, or neither."
                )
        source_batch, target_batch = (x.new_zeros(len(x), dtype=torch.long) for x in (sources, targets))
    edges = []
    for cloud in target_batch.unique().tolist():
        starts, stops = zip(*(_range(batch, cloud) for batch in (source_batch, target_batch)), strict=True)
        candidates = sources[starts[0] : stops[0]]
        rows = max(1, ROW_ENTRIES // max(1, len(candidates)))
        for start in range(starts[1], stops[1], rows):
            block = targets[start : min(start + rows, stops[1])].to(compute_dtype(targets))
            # Differences, not a product: nothing rounds them, and nothing cancels.
            distances = torch.cdist(block, candidates.to(block.dtype), compute_mode="donot_use_mm_for_euclid_dist")
            nearest = distances.topk(min(k, len(candidates)), largest=False).indices + starts[0]
            reached = torch.arange(start, start + len(block), device=targets.device)
            edges.append((nearest.flatten(), reached.repeat_interleave(nearest.shape[1])))
    source_rows, target_rows = zip(*edges, strict=True)
    return torch.cat(source_rows), torch.cat(target_rows)


def _range(batch: Tensor, cloud: int) -> tuple[int, int]:
    """Return where a cloud's points start and stop in an ascending batch vector."""
    value = torch.tensor([cloud], dtype=batch.dtype, device=batch.device)
    return int(torch.searchsorted(batch, value)), int(torch.searchsorted(batch, value, right=True))


def _runs(items: Sequence[int]) -> list[tuple[int, int]]:
    return [(item, len(list(same))) for item, same in groupby(items)]


def edges_of(graphs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the sources and targets (E,) of groups of graphs, targets in order."""
    sources, targets, start = [], [], 0
    for idx in graphs:
        clouds, size, k = idx.shape
        first = torch.arange(start, start + clouds * size, size, device=idx.device)
        sources.append((idx + first.view(-1, 1, 1)).flatten())
        start += clouds * size
        targets.append(torch.arange(start - clouds * size, start, device=idx.device).repeat_interleave(k))
    return torch.cat(sources), torch.cat(targets)


def sorted_edges(edge_index: Tensor, num_sources: int, num_targets: int) -> tuple[Tensor, Tensor]:
    """Return sources and targets (E,) of an edge list, ordered by target.

    Raises InputError where it is no (2, E) tensor of point numbers within the clouds.
    """
    if edge_index.layout != torch.strided or edge_index.dim() != 2 or edge_index.shape[0] != 2:
        raise InputError(
            "edge_index is a dense (2, E) tensor, sources above targets; turn an adjacency into one first."
        )
    if edge_index.dtype not in (torch.int64, torch.int32):
        raise InputError(f"edge_index is {edge_index.dtype}; point numbers are int64 or int32.")
    if torch.compiler.is_compiling():  # the values are not there yet: the check goes into the graph, sorting waits
        counts = torch.tensor([[num_sources], [num_targets]], device=edge_index.device)
        inside = ((edge_index >= 0) & (edge_index < counts)).all()
        torch._assert_async(inside, "edge_index has a number outside the clouds.")
        return edge_index[0].long(), edge_index[1].long()
    sources, targets = edge_index.as_subclass(Tensor).long()
    for name, row, count in (("sources", sources, num_sources), ("targets", targets, num_targets)):
        if row.numel():
            low, high = (int(bound) for bound in row.aminmax())
            if low < 0 or high >= count:
                wrong = low if low < 0 else high
                raise InputError(f"edge_index has {wrong} among its {name}; points are numbered 0 to {count - 1}.")
    if (targets[1:] < targets[:-1]).any():
        targets, order = torch.sort(targets, stable=True)
        sources = sources[order]
    return sources, targets


def regular_graphs(sources: Tensor, targets: Tensor, sizes: list[int]) -> list[Tensor] | None:
    """Return the graph (B, N, k) of each group, where the edges make such graphs; None where they do not.

    They do where all points of a cloud have equally many neighbours, at least one, and all in that cloud.

    Args:
        sources, targets: (E,), ordered by target.
        sizes: points of each cloud.
    """
    num_points, device = sum(sizes), sources.device
    counts = torch.tensor(sizes, device=device)
    starts = counts.cumsum(0) - counts
    degrees = torch.bincount(targets, minlength=num_points)
    degree = degrees[starts]
    if (degree == 0).any() or (degrees != degree.repeat_interleave(counts)).any():
        return None
    edges = counts * degree
    local = sources - starts.repeat_interleave(edges)
    if (local < 0).any() or (local >= counts.repeat_interleave(edges)).any():
        return None
    shapes = list(zip(sizes, degree.tolist(), strict=True))
    runs = [(len(list(same)), *shape) for shape, same in groupby(shapes)]
    parts = local.split([clouds * size * k for clouds, size, k in runs])
    return [part.view(run) for part, run in zip(parts, runs, strict=True)]
