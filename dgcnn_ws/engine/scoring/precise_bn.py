"""Batch norm's statistics measured anew after training: "precise BN" (https://arxiv.org/abs/2105.07576).

Running statistics are averages over the last steps of training, each of one micro-batch and of other weights. Here
they are those of the finished network over all training clouds.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dgcnn_ws.datasets import LabelledClouds
from dgcnn_ws.nn.norm import RunningEstimates, one_update

BATCH = 32  # clouds whose statistics are taken at once
ROUNDS = 2  # an estimate's variance is around its old mean, and what it sees follows from the estimates before it


@torch.no_grad()
def re_estimate(
    model: nn.Module,
    dataset: LabelledClouds,
    batch_size: int,
    device: torch.device,
    seed: int = 0,
    num_points: int | None = None,
    most: int | None = None,
    all_estimates: bool = False,
) -> int:
    """Set the running statistics of every batch norm in `model` to those over `dataset`; return how many norms changed.

    With m and v the mean and variance of a channel in a batch, over all batches:

        mean = E[m],   var = E[v] + E[m²] − E[m]²

    Every batch norm uses its batch's own statistics meanwhile, as in training; all else is in evaluation mode. The
    running estimates of `est` and `ws_bcn` that stand after a batch norm see other values then, so they are measured
    too. Those before are what training itself went by, and stay.

    Args:
        model: (B, 3, N) -> (B, num_classes), on `device`; it is left in evaluation mode.
        dataset: clouds to measure, as they are scored: without augmentation.
        batch_size: clouds in a batch, drawn at random; batch norms leave out those of an incomplete last batch.
        seed: of that draw.
        num_points: that the network sees, the first of each cloud's. None: all.
        most: clouds measured, a random choice of them. None: all.
        all_estimates: measure every running estimate, also those before a batch norm or without any.

    Raises ValueError where a batch norm sees one value of a channel only (one cloud, in the head).
    """
    model.eval()
    modules = list(model.modules())
    norms = [module for module in modules if isinstance(module, _BatchNorm) and module.track_running_stats]
    first = 0 if all_estimates else modules.index(norms[0]) if norms else len(modules)
    estimates = [module for module in modules[first:] if isinstance(module, RunningEstimates)]
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:most]
    batches = order.split(batch_size)

    def passes(batches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The model's outputs for each of the batches."""
        return (model(points[:, :num_points].to(device).transpose(1, 2)) for points in dataset.read(batches))

    whole = [batch for batch in batches if len(batch) == batch_size] or [order]
    _measure_batch_norms(norms, lambda: passes(whole), device)
    for _ in range(ROUNDS if estimates else 0):
        for module in estimates:
            module.train()
            module.num_updates.zero_()  # what is seen next replaces what was
        with one_update(model):
            for _ in passes(batches):
                pass
    model.eval()
    if norms and estimates and modules.index(norms[-1]) > modules.index(estimates[0]):  # it sees other values now
        _measure_batch_norms(norms, lambda: passes(whole), device)
    return len(norms) + len(estimates)


def _measure_batch_norms(norms: list[_BatchNorm], passes: Callable[[], Iterator[Tensor]], device: torch.device) -> None:
    """Set the norms' running statistics to those of all `passes` of their model, of which each uses its own."""
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    sums = [torch.zeros(3, norm.num_features, dtype=torch.float64, device=device) for norm in norms]
    count = 0
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the running statistics are then the last batch's own
    try:
        for _ in passes():
            count += 1
            for norm, total in zip(norms, sums, strict=True):
                assert norm.running_mean is not None and norm.running_var is not None
                mean, var = norm.running_mean.double(), norm.running_var.double()
                total += torch.stack([mean, var, mean.square()])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    for norm, total in zip(norms, sums, strict=True):
        assert norm.running_mean is not None and norm.running_var is not None
        mean, var, square = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var + (square - mean.square()).clamp_min(0))
