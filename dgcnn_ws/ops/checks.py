"""What the operators can be called with: shapes, types and devices that fit together, or InputError."""

from itertools import pairwise

import torch
from torch import Tensor

from dgcnn_ws.errors import InputError
from dgcnn_ws.ops.layers import Layers


def check_points(x: Tensor, name: str) -> None:
    if x.dim() != 3:
        raise InputError(f"{name} is (clouds, points, channels); this one has shape {tuple(x.shape)}.")
    if not x.dtype.is_floating_point:
        raise InputError(f"{name} is {x.dtype}; convert it to a floating type first.")
    if x.shape[1] == 0:
        raise InputError(f"{name} {tuple(x.shape)} has clouds without points; drop the empty clouds.")


def check_types(x: Tensor, weight: Tensor) -> None:
    """Raise InputError where points and weights are of two types that nothing makes one."""
    narrow = torch.is_autocast_enabled(x.device.type) and torch.float64 not in (x.dtype, weight.dtype)
    if x.dtype != weight.dtype and not (narrow and x.dtype.is_floating_point):
        raise InputError(
            f"The points are {x.dtype} and the weights {weight.dtype}; convert one of them: x.to(...) or model.to(...)."
        )


def check_idx(idx: Tensor) -> None:
    if idx.dim() != 3 or idx.shape[2] == 0:
        raise InputError(f"The graph idx is (clouds, points, k), k >= 1; this one has shape {tuple(idx.shape)}.")
    if idx.dtype not in (torch.int64, torch.int32):
        raise InputError(f"The graph idx is {idx.dtype}; point numbers are int64 or int32.")


def check_edges(ab: Tensor, idx: Tensor) -> None:
    check_points(ab, "ab")
    check_idx(idx)
    if ab.shape[2] % 2:
        raise InputError(f"ab holds two terms side by side; {ab.shape[2]} channels cannot be halved.")
    if idx.shape[:2] != ab.shape[:2]:
        raise InputError(f"idx {tuple(idx.shape)} and ab {tuple(ab.shape)} differ in clouds or points.")
    check_device(ab, idx, "idx")


def check_layers(ab: Tensor, idx: Tensor, layers: Layers, last_is_affine: bool) -> None:
    check_edges(ab, idx)
    scales, shifts, weights, biases, slope = layers
    affine = len(weights) + last_is_affine
    if len(scales) != affine or len(shifts) != affine or len(biases) not in (0, len(weights)):
        raise InputError(
            f"{len(weights)} weights go with {affine} scales and shifts, and as many biases as weights or none; these "
            f"are {len(scales)}, {len(shifts)} and {len(biases)}."
        )
    widths = [ab.shape[2] // 2, *(len(weight) for weight in weights)]
    expected: list[tuple[str, Tensor, tuple[int, ...]]] = []
    for name, factors in (("scale", scales), ("shift", shifts)):
        expected += [(name, factor, (ab.shape[0], width)) for factor, width in zip(factors, widths, strict=False)]
    expected += [("weight", w, (c_out, c_in)) for w, (c_in, c_out) in zip(weights, pairwise(widths), strict=True)]
    expected += [("bias", bias, (width,)) for bias, width in zip(biases, widths[1:], strict=False)]
    for name, tensor, shape in expected:
        if tensor.shape != shape:
            raise InputError(f"A {name} of the layers has shape {tuple(tensor.shape)}; {shape} fits the others.")
        check_device(ab, tensor, name)
    check_slope(slope)


def check_slope(negative_slope: float) -> None:
    if not 0 <= negative_slope <= 1:
        raise InputError(f"negative_slope={negative_slope} is outside [0, 1].")


def check_device(x: Tensor, other: Tensor, name: str) -> None:
    if other.device != x.device:
        raise InputError(f"{name} is on {other.device} and the features are on {x.device}; move one of them.")


def takes_maximum(sign: Tensor, x: Tensor, channels: int) -> Tensor:
    if sign.shape != (channels,):
        raise InputError(f"sign has shape {tuple(sign.shape)}; it needs one number for each channel: ({channels},).")
    check_device(x, sign, "sign")
    return sign if sign.dtype == torch.bool else sign > 0


def check_affine(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> None:
    check_points(x, "The input")
    for name, factor in (("scale", scale), ("shift", shift)):
        if factor.shape != (x.shape[0], x.shape[2]):
            raise InputError(
                f"{name} has shape {tuple(factor.shape)}; clouds by channels is {(x.shape[0], x.shape[2])}."
            )
        if not factor.dtype.is_floating_point:
            raise InputError(f"{name} is {factor.dtype}; convert it to a floating type first.")
        check_device(x, factor, name)
    check_slope(negative_slope)
