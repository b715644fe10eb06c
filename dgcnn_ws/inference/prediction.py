"""What a network says of single clouds, and which of their points it says that for."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dgcnn_ws.errors import InputError


@torch.inference_mode()
def predict(model: nn.Module, clouds: list[np.ndarray], device: torch.device) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the class probabilities of clouds, and how many channels each of their points wins.

    A point wins a channel of the pooled maximum where no other point of its cloud has more of it. Those that win
    none could be missing without a change to the maximum: the others are PointNet's critical points
    (https://arxiv.org/abs/1612.00593).

    Args:
        model: (B, 3, N) -> (B, num_classes), on `device`; it is left in evaluation mode.
        clouds: (N, 3) each, of any sizes; those of one size share a forward pass.

    Returns:
        probabilities (clouds, num_classes) float64; for each cloud its points' wins (N,), `emb_dims` in all.

    Raises InputError where a cloud has fewer than k points, or a probability is not a number.
    """
    model.eval()
    results: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    sizes = [len(cloud) for cloud in clouds]
    for size in dict.fromkeys(sizes):
        members = [i for i in range(len(clouds)) if sizes[i] == size]
        batch = torch.from_numpy(np.stack([clouds[i] for i in members]).astype(np.float32)).to(device)
        logits, wins = _forward(model, batch.transpose(1, 2))
        probabilities = logits.double().softmax(1).cpu().numpy()
        results.update(zip(members, zip(probabilities, wins.cpu().numpy(), strict=True), strict=True))
    probabilities = np.stack([results[i][0] for i in range(len(clouds))])
    if not np.isfinite(probabilities).all():
        raise InputError("the network's answer is not a number: its weights are damaged.")
    return probabilities, [results[i][1] for i in range(len(clouds))]


def _forward(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits (B, num_classes) and wins (B, N) of clouds (B, 3, N)."""
    pooled: list[Tensor] = []
    hook = model.global_feature.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    try:
        logits = model(x)
    finally:
        hook.remove()
    winners = model.global_feature.winners(pooled[0])  # (B, emb_dims)
    wins = torch.zeros(len(x), x.shape[2], dtype=torch.long, device=x.device)
    return logits, wins.scatter_add_(1, winners, torch.ones_like(winners))
