"""Every operator in plain torch, forward and backward, written literally.

What the kernels in `cpu` and `cuda` are tested against, and the fallback where those cannot run. The three
export the same functions with the same signatures. Statistics and gradients are summed in `compute_dtype`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_BYTES = 2**22  # one block of distances: fits the cache, and outweighs the calls it takes


def compute_dtype(x: Tensor) -> torch.dtype:
    """Return float64 for float64 and float32 for everything narrower."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def arg_dtype(k: int) -> torch.dtype:
    """Return the narrowest type that holds the slot numbers 0..k-1."""
    return torch.uint8 if k <= 256 else torch.int32


def knn(x: Tensor, k: int) -> Tensor:
    """Return idx (B, N, k) int64 of the k nearest neighbours of each point in x (B, N, C)."""
    x = x.to(compute_dtype(x))
    batch, num_points, _ = x.shape
    rows = max(1, BLOCK_BYTES // (x.element_size() * max(1, batch * num_points)))
    idx = torch.empty(batch, num_points, k, dtype=torch.int64, device=x.device)
    for start in range(0, num_points if batch else 0, rows):
        # Differences, not a product: no cancellation, and no setting (TF32, autocast) that could round it.
        block = torch.cdist(x[:, start : start + rows], x, compute_mode="donot_use_mm_for_euclid_dist")
        idx[:, start : start + rows] = block.topk(k, largest=False, sorted=False).indices
    return idx


def dilate(x: Tensor, idx: Tensor, dilation: int) -> Tensor:
    """Return every dilation-th of idx (B, N, k) by distance in x (B, N, C), the nearest first."""
    x = x.to(compute_dtype(x))
    batch, num_points, k = idx.shape
    out = torch.empty(batch, num_points, (k - 1) // dilation + 1, dtype=idx.dtype, device=idx.device)
    rows = max(1, BLOCK_BYTES // (x.element_size() * max(1, batch * k * x.shape[2])))
    for start in range(0, num_points, rows):
        block = idx[:, start : start + rows]
        distances = (_gather(x, block) - x[:, start : start + rows].unsqueeze(2)).square().sum(3)
        out[:, start : start + rows] = block.gather(2, distances.sort(dim=2, stable=True).indices[..., ::dilation])
    return out


def edge_aggregate(ab: Tensor, idx: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme (B, N, C), its slot arg (B, N, C), and mean, var (B, C) of y_ij = a_j + b_i."""
    a, b = ab.to(compute_dtype(ab)).chunk(2, dim=-1)
    neighbours = _gather(a, idx)  # (B, N, k, C)
    arg = torch.where(use_max, neighbours.argmax(2), neighbours.argmin(2))  # (B, N, C)
    extreme = b + neighbours.gather(2, arg.unsqueeze(2)).squeeze(2)
    mean, var = _moments((neighbours + b.unsqueeze(2)).flatten(1, 2))
    return extreme.to(ab.dtype), arg.to(arg_dtype(idx.shape[2])), mean, var


def edge_aggregate_backward(
    ab: Tensor,
    idx: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
) -> Tensor:
    """Return the gradient of ab (B, N, 2C); a gradient that is None counts as zero."""
    a, b = ab.to(mean.dtype).chunk(2, dim=-1)
    y = _gather(a, idx) + b.unsqueeze(2)  # (B, N, k, C)
    count = y.shape[1] * y.shape[2]
    g_y = torch.zeros_like(y)
    if g_mean is not None:
        g_y += g_mean[:, None, None] / count
    if g_var is not None:
        g_y += g_var[:, None, None] * (2 / count) * (y - mean[:, None, None])
    if g_extreme is not None:
        g_y.scatter_add_(2, arg.long().unsqueeze(2), g_extreme.to(y.dtype).unsqueeze(2))
    g_a = torch.zeros_like(a).scatter_add_(1, _channels(idx, a), g_y.flatten(1, 2))
    return torch.cat([g_a, g_y.sum(2)], dim=-1).to(ab.dtype)


def scale_shift_act(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return leaky_relu(scale * x + shift) (B, N, C)."""
    return F.leaky_relu(_affine(x, scale, shift), negative_slope).to(x.dtype)


def scale_shift_act_backward(
    g_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x (B, N, C), scale and shift (B, C)."""
    z = _affine(x, scale, shift)
    g_z = torch.where(z > 0, g_out, negative_slope * g_out.to(z.dtype))
    return (
        (g_z * scale.unsqueeze(1)).to(x.dtype),
        (g_z * x).sum(1).to(scale.dtype),
        g_z.sum(1).to(shift.dtype),
    )


def column_moments(y: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme (B, C), its point arg (B, C), and mean, var (B, C) over the points of y (B, N, C)."""
    arg = torch.where(use_max, y.argmax(1), y.argmin(1))
    mean, var = _moments(y.to(compute_dtype(y)))
    return y.gather(1, arg.unsqueeze(1)).squeeze(1), arg, mean, var


def column_moments_backward(
    y: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
    activated: Tensor | None = None,
) -> Tensor:
    """Return the gradient of y (B, N, C); a gradient that is None counts as zero.

    activated (B, 4, C) holds scale, shift, right and left: right is added where scale y + shift > 0, left elsewhere.
    """
    num_points = y.shape[1]
    g_y = torch.zeros(y.shape, dtype=mean.dtype, device=y.device)
    if g_mean is not None:
        g_y += g_mean.unsqueeze(1) / num_points
    if g_var is not None:
        g_y += g_var.unsqueeze(1) * (2 / num_points) * (y - mean.unsqueeze(1))
    if g_extreme is not None:
        g_y.scatter_add_(1, arg.unsqueeze(1), g_extreme.to(g_y.dtype).unsqueeze(1))
    if activated is not None:
        scale, shift, right, left = activated.to(g_y.dtype).split(1, dim=1)
        g_y += torch.where(scale * y + shift > 0, right, left)
    return g_y.to(y.dtype)


def mean_act(y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return the mean (B, C) over the points of leaky_relu(scale * y + shift), in the type of sums."""
    return F.leaky_relu(_affine(y, scale, shift), negative_slope).mean(1)


def mean_act_parts(y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """Return means (B, 3, C) over the points: of leaky_relu(z), d y and d; z = scale y + shift, d its derivative."""
    z = _affine(y, scale, shift)
    derivative = torch.where(z > 0, 1.0, negative_slope).to(z.dtype)
    return torch.stack([(derivative * part).mean(1) for part in (z, y, torch.ones_like(z))], dim=1)


def mean_act_backward(
    g_out: Tensor, y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of y (B, N, C), scale and shift (B, C)."""
    g_points = (g_out.to(compute_dtype(y)) / y.shape[1]).unsqueeze(1).expand(y.shape)
    return scale_shift_act_backward(g_points, y, scale, shift, negative_slope)


def _moments(y: Tensor) -> tuple[Tensor, Tensor]:
    mean = y.mean(1)  # not torch.var_mean, which warns of an empty batch
    return mean, (y - mean.unsqueeze(1)).square().mean(1)


def _affine(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    dtype = compute_dtype(x)
    return x.to(dtype) * scale.to(dtype).unsqueeze(1) + shift.to(dtype).unsqueeze(1)


def _channels(idx: Tensor, a: Tensor) -> Tensor:
    return idx.long().flatten(1).unsqueeze(-1).expand(-1, -1, a.shape[-1])  # (B, N k, C)


def _gather(a: Tensor, idx: Tensor) -> Tensor:
    return a.gather(1, _channels(idx, a)).unflatten(1, idx.shape[1:])  # (B, N, k, C)
