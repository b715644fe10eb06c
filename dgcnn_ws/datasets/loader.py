"""Batches of a data set, without worker processes.

In memory they are index selections on the device; from files they are read ahead by a thread (stream.py).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dgcnn_ws.datasets.modelnet import LabelledClouds, PointClouds
from dgcnn_ws.errors import InputError


class Loader:
    """Batches of a data set in an order that is a pure function of (seed, epoch), so a run resumes anywhere.

    Clouds in memory move to the device once. On CUDA they do so where they take less than half of the free memory;
    otherwise, and where clouds are streamed, each batch is gathered in pinned host memory and copied.

    Args:
        dataset: the clouds.
        batch_size: clouds per batch.
        device: where batches are wanted.
        shuffle: draw each epoch's order at random.
        drop_last: leave out a last batch that is smaller than `batch_size`.
        seed: non-negative, decides every epoch's order.
        mine: places (m,) int64 in a batch, where each of several processes has its own: of clouds that are streamed no
            others are read, and zeros stand for them. Needs `drop_last`. Default: all.

    Raises:
        InputError: no batch can be formed, `seed` is negative, or `mine` is given without `drop_last`.
    """

    def __init__(
        self,
        dataset: LabelledClouds,
        batch_size: int,
        device: torch.device | str = "cpu",
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        mine: Tensor | None = None,
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size} holds no cloud; choose at least 1.")
        if drop_last and batch_size > len(dataset):
            raise InputError(
                f"batch_size={batch_size} is larger than the {len(dataset)} clouds of {dataset.split}, so "
                "dropping the incomplete batch leaves nothing; lower --batch-size."
            )
        if mine is not None and not drop_last:
            raise InputError("mine are places of whole batches; set drop_last.")
        if seed < 0:
            raise InputError(f"seed={seed} must not be negative.")
        self.dataset = dataset
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.mine = mine
        storage = torch.device("cpu")
        self.points: Tensor | None = None
        if isinstance(dataset, PointClouds):
            storage = self.device if fits(dataset.points, self.device) else storage
            self.points = dataset.points.to(storage)
        self.targets = dataset.targets.to(storage)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole if self.drop_last or rest == 0 else whole + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch: points (b, num_points, 3) and the data set's targets, labels (b,) for classes.

        Args:
            epoch: which epoch, from 0.
            start: number of the first batch to yield; `len(self)` yields none.

        Raises:
            InputError: `epoch` or `start` is out of range.
        """
        if epoch < 0:
            raise InputError(f"epoch={epoch} must not be negative.")
        if not 0 <= start <= len(self):
            raise InputError(f"start={start} lies outside the {len(self)} batches of an epoch.")
        return self.batches(self.order(epoch), range(start, len(self)))

    def order(self, epoch: int) -> Tensor:
        """The permutation (n,) int64 on CPU in which an epoch visits the clouds."""
        count = len(self.dataset)
        if not self.shuffle:
            return torch.arange(count)
        # SeedSequence mixes both numbers, so that (seed 0, epoch 1) and (seed 1, epoch 0) are unrelated.
        mixed = int(np.random.SeedSequence([self.seed, epoch]).generate_state(1)[0])
        return torch.randperm(count, generator=torch.Generator().manual_seed(mixed))

    def batches(self, order: Tensor, numbers: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of these numbers of an epoch that visits clouds in this order."""
        order = order.to(self.targets.device)

        def chosen(batch: int) -> Tensor:
            return order[batch * self.batch_size : (batch + 1) * self.batch_size]

        for batch, points in zip(numbers, self.clouds(map(chosen, numbers)), strict=True):
            targets = self.targets[chosen(batch)]
            if points.device.type != self.device.type:
                points = points.pin_memory().to(self.device, non_blocking=True)
                targets = targets.pin_memory().to(self.device, non_blocking=True)
            yield points, targets

    def clouds(self, wanted: Iterator[Tensor]) -> Iterator[Tensor]:
        """Yield the clouds (b, num_points, C) of each of the `wanted` (b,) indices."""
        if self.points is not None:
            yield from (self.points[rows] for rows in wanted)
        elif self.mine is None:
            yield from self.dataset.read(wanted)
        else:
            for own in self.dataset.read(rows[self.mine] for rows in wanted):
                points = own.new_zeros(self.batch_size, *own.shape[1:])
                points[self.mine] = own
                yield points


def fits(points: Tensor, device: torch.device) -> bool:
    """Whether `points` may lie on `device` for the whole run."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return points.nbytes < free / 2
