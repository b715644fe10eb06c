"""A network of dense clouds (B, C, N) on torch_geometric's batches, of clouds of any sizes."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.graphs import check_batch, cloud_order, cloud_sizes
from dgcnn_ws.nn.norm import RunningEstimates, one_update


class OnBatch(nn.Module):
    """`DGCNN`, `DGCNNTNet` or `DGCNNSeg` as a network of torch_geometric's `Data` or `Batch`.

    Clouds of one size run together. Where a batch holds several sizes, each runs by itself: with group norms and
    running estimates that is what one run of all would give; batch norms cannot train so.

        model = OnBatch(DGCNN(10))
        model(batch)                     # (clouds, classes), or (points, parts) of DGCNNSeg

    Args:
        network: its parameters are this module's, under `network.`.

    Shapes:
        data: `pos` (P, 3), beside it `x` (P, D) where the network takes 3 + D channels; `batch` (P,), in any order,
            where there are several clouds; `category` (clouds,) for a segmentation network of several categories.

    Raises InputError where a batch norm would train on clouds of several sizes, or data has no `pos`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, data: Any) -> Tensor:
        points, batch = getattr(data, "pos", None), getattr(data, "batch", None)
        if points is None:
            raise InputError("These data have no pos, the points' coordinates (P, 3).")
        features = getattr(data, "x", None)
        if features is not None:
            points = torch.cat([points, features], dim=1)
        check_batch(batch, len(points))
        order = cloud_order(batch)
        if order is not None and batch is not None:
            points, batch = points[order[0]], batch[order[0]]
        sizes = cloud_sizes(batch, len(points))
        out = self._by_size(points, sizes, getattr(data, "category", None))
        return out if order is None or len(out) != len(points) else out[order[1]]

    def _by_size(self, points: Tensor, sizes: list[int], category: Tensor | None) -> Tensor:
        if len(set(sizes)) == 1:
            return _flat(self._run(points.unflatten(0, (len(sizes), -1)), category))
        norms = [norm for norm in self.modules() if norm.training]
        if any(isinstance(norm, _BatchNorm) for norm in norms):
            raise InputError(
                "Batch norm cannot train on clouds of several sizes here; use norm 'ws_gn' and a head norm other than "
                "'bn', or clouds of one size."
            )
        clouds = points.split(sizes)
        outputs: list[Tensor | None] = [None] * len(sizes)
        if any(isinstance(norm, RunningEstimates) and not norm.deferred for norm in norms):
            with one_update(self.network):
                self._each_size(clouds, sizes, category, outputs)
        else:
            self._each_size(clouds, sizes, category, outputs)
        return torch.cat([_flat(out.unsqueeze(0)) for out in outputs if out is not None])

    def _each_size(
        self, clouds: tuple[Tensor, ...], sizes: list[int], category: Tensor | None, outputs: list[Tensor | None]
    ) -> None:
        for size in dict.fromkeys(sizes):
            chosen = [number for number, other in enumerate(sizes) if other == size]
            found = self._run(
                torch.stack([clouds[number] for number in chosen]), None if category is None else category[chosen]
            )
            for number, out in zip(chosen, found, strict=True):
                outputs[number] = out

    def _run(self, clouds: Tensor, category: Tensor | None) -> Tensor:
        dense = clouds.transpose(1, 2)
        return self.network(dense) if category is None else self.network(dense, category)


def _flat(out: Tensor) -> Tensor:
    """Return what a network says of its clouds (B, classes), or of their points one after another."""
    return out if out.dim() == 2 else out.transpose(1, 2).flatten(0, 1)
