"""Batch norm's statistics measured anew after training: "precise BN" (https://arxiv.org/abs/2105.07576).

Running statistics are averages over the last steps of training, each of one micro-batch and of other weights. Here
they are those of the finished network over all training clouds.
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from dgcnn_ws.datasets import LabelledClouds

BATCH = 32  # clouds whose statistics are taken at once


@torch.no_grad()
def re_estimate(
    model: nn.Module,
    dataset: LabelledClouds,
    batch_size: int,
    device: torch.device,
    seed: int = 0,
    num_points: int | None = None,
    most: int | None = None,
) -> int:
    """Set the running statistics of every batch norm in `model` to those over `dataset`, and return how many there are.

    With m and v the mean and variance of a channel in a batch, over all batches:

        mean = E[m],   var = E[v] + E[m²] − E[m]²

    Every batch norm uses its batch's own statistics meanwhile, as in training; all else is in evaluation mode.

    Args:
        model: (B, 3, N) -> (B, num_classes), on `device`; it is left in evaluation mode.
        dataset: clouds to measure, as they are scored: without augmentation.
        batch_size: clouds in a batch, drawn at random; those of an incomplete last batch are left out.
        seed: of that draw.
        num_points: that the network sees, the first of each cloud's. None: all.
        most: clouds measured, a random choice of them. None: all.

    Raises ValueError where a batch norm sees one value of a channel only (one cloud, in the head).
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    sums = [torch.zeros(3, norm.num_features, dtype=torch.float64, device=device) for norm in norms]
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:most]
    batches = [batch for batch in order.split(batch_size) if len(batch) == batch_size] or [order]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the running statistics are then the last batch's own
    try:
        for points in dataset.read(batches) if norms else ():
            model(points[:, :num_points].to(device).transpose(1, 2))
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
        mean, var, square = total / len(batches)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var + (square - mean.square()).clamp_min(0))
    return len(norms)
