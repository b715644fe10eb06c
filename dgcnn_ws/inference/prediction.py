"""What a network says of single clouds, and which of their points it says that for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dgcnn_ws.datasets.augment import rotate
from dgcnn_ws.errors import InputError


@dataclass(frozen=True)
class Answers:
    """What a network says of clouds, in their order.

    Args:
        probabilities: (clouds, num_classes) float64.
        features: (clouds, emb_dims or twice that) float32, the pooled vector that the head sees of each: the maximum
            of every channel, and behind these, where the network has it, the mean of every channel.
        wins: for each cloud, of how many channels of the pooled maximum each of its points (N,) is the largest;
            `emb_dims` in all.
    """

    probabilities: np.ndarray
    features: np.ndarray
    wins: list[np.ndarray]


@torch.inference_mode()
def predict(
    model: nn.Module,
    clouds: list[np.ndarray],
    device: torch.device,
    temperature: float = 1.0,
    views: Tensor | None = None,
    normals: bool = False,
) -> Answers:
    """Return what a network says of clouds.

    A point wins a channel of the pooled maximum where no other point of its cloud has more of it. Those that win
    none could be missing without a change to the maximum: the others are PointNet's critical points
    (https://arxiv.org/abs/1612.00593).

    Args:
        model: (B, 3, N) -> (B, num_classes), on `device`; it is left in evaluation mode.
        clouds: (N, C) each, of any sizes; those of one size share a forward pass.
        temperature: what the logarithms of probabilities are divided by (`engine/scoring/calibration.py`).
        views: rotations (V, 3, 3), the first of them none, whose predictions are averaged. Default: none.
            Features and wins are of the cloud as it stands.
        normals: whether channels 3 to 5 are normals, which turn with the cloud.

    Raises InputError where a cloud has fewer than k points, or a probability is not a number.
    """
    model.eval()
    views = torch.eye(3)[None] if views is None else views
    results: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    dtype = next((weight.dtype for weight in model.parameters()), torch.float32)
    sizes = [len(cloud) for cloud in clouds]
    for size in dict.fromkeys(sizes):
        members = [i for i in range(len(clouds)) if sizes[i] == size]
        batch = torch.from_numpy(np.stack([clouds[i] for i in members]).astype(np.float32)).to(device, dtype)
        rows = _answer(model, batch, temperature, views, normals)
        results.update(zip(members, zip(*(row.cpu().numpy() for row in rows), strict=True), strict=True))
    probabilities, features, wins = zip(*(results[i] for i in range(len(clouds))), strict=True)
    if not np.isfinite(probabilities).all():
        raise InputError("the network's answer is not a number: its weights are damaged.")
    return Answers(np.stack(probabilities), np.stack(features), list(wins))


def _answer(
    model: Any, points: Tensor, temperature: float, views: Tensor, normals: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (B, num_classes), features (B, C) and wins (B, N) of clouds (B, N, C)."""
    logits, features, wins = _forward(model, points.transpose(1, 2))
    probabilities = logits.double().softmax(1)
    for view in views[1:].to(points.device):
        turned = rotate(points, view.expand(len(points), 3, 3), normals)
        probabilities = probabilities + model(turned.transpose(1, 2)).double().softmax(1)
    log_probabilities = (probabilities / len(views)).clamp_min(torch.finfo(torch.float64).tiny).log()
    return (log_probabilities / temperature).softmax(1), features, wins


def _forward(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits (B, num_classes), features (B, C) and wins (B, N) of clouds (B, 3, N)."""
    seen: list[tuple[Tensor, Tensor]] = []
    hook = model.global_feature.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    try:
        logits = model(x)
    finally:
        hook.remove()
    pooled, features = seen[0]
    winners = model.global_feature.winners(pooled)  # (B, emb_dims)
    wins = torch.zeros(len(x), x.shape[2], dtype=torch.long, device=x.device)
    return logits, features.flatten(1).float(), wins.scatter_add_(1, winners, torch.ones_like(winners))
