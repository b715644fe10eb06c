"""The operators as torch knows them: schemas, shapes for tracing, gradients, and which kernels run.

Opaque to torch.compile and export, transparent to autograd. Implementations take their inputs as they come,
so autocast has nothing to cast: features keep their type, statistics are float32 (float64 for float64).
"""

import importlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from dgcnn_ws.errors import InputError
from dgcnn_ws.ops import reference
from dgcnn_ws.ops.torch_operator import operator

_forced = False


@contextmanager
def kernels(name: str) -> Iterator[None]:
    """Choose what runs inside the context, process-wide: "auto", or "torch" for the reference."""
    global _forced
    if name not in ("auto", "torch"):
        raise InputError(f'kernels are "auto" or "torch", not {name!r}.')
    before, _forced = _forced, name == "torch"
    try:
        yield
    finally:
        _forced = before


def _kernels_for(x: Tensor) -> ModuleType:
    return reference if _forced else _fastest(x.device.type)


def compiled_on(x: Tensor) -> bool:
    """Return whether compiled kernels run on x."""
    return _kernels_for(x) is not reference


@cache
def _fastest(device_type: str) -> ModuleType:
    """Return the compiled kernels for a kind of device, or the reference where their compiler is missing."""
    module, compiler = {"cpu": ("cpu", "numba"), "cuda": ("cuda", "triton")}.get(device_type, (None, None))
    if module is None:
        return reference
    try:
        return importlib.import_module(f"dgcnn_ws.ops.{module}")
    except ImportError as error:
        warnings.warn(
            f"No compiled kernels on {device_type} ({error}): plain torch runs, several times slower. "
            f"Install {compiler} to have them.",
            stacklevel=2,
        )
        return reference


def _outputs(x: Tensor, *shapes: tuple[int, ...]) -> list[Tensor]:
    return [x.new_empty(shape, dtype=reference.compute_dtype(x)) for shape in shapes]


@operator("dgcnn_ws::knn")
def knn(x: Tensor, k: int) -> Tensor:
    """See `dgcnn_ws.ops.knn`."""
    return _kernels_for(x).knn(x, k)


@knn.register_fake
def _(x: Tensor, k: int) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[1], k), dtype=torch.int64)


@knn.register_vmap
def _(info: Any, in_dims: tuple[int, None], x: Tensor, k: int) -> tuple[Tensor, int]:
    every = x.movedim(in_dims[0], 0)
    return knn(every.flatten(0, 1), k).unflatten(0, every.shape[:2]), 0


@operator("dgcnn_ws::dilate")
def dilate(x: Tensor, idx: Tensor, dilation: int) -> Tensor:
    """Return every dilation-th of idx (B, N, k) by distance in x, the nearest first."""
    return reference.dilate(x, idx, dilation)


@dilate.register_fake
def _(x: Tensor, idx: Tensor, dilation: int) -> Tensor:
    return idx.new_empty((*idx.shape[:2], (idx.shape[2] - 1) // dilation + 1))


@dilate.register_vmap
def _(info: Any, in_dims: tuple[int | None, int | None, None], x: Tensor, idx: Tensor, d: int) -> tuple[Tensor, int]:
    every = (
        t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip((x, idx), in_dims, strict=False)
    )
    x, idx = every
    return dilate(x.flatten(0, 1), idx.flatten(0, 1), d).unflatten(0, x.shape[:2]), 0


@operator("dgcnn_ws::edge_aggregate")
def edge_aggregate(ab: Tensor, idx: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme, arg, mean and var: `dgcnn_ws.ops.edge_aggregate` and the slots its gradient goes to."""
    return _kernels_for(ab).edge_aggregate(ab, idx, use_max)


@edge_aggregate.register_fake
def _(ab: Tensor, idx: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, num_points, channels = ab.shape[0], ab.shape[1], ab.shape[2] // 2
    extreme = ab.new_empty((batch, num_points, channels))
    arg = ab.new_empty(extreme.shape, dtype=reference.arg_dtype(idx.shape[2]))
    mean, var = _outputs(ab, (batch, channels), (batch, channels))
    return extreme, arg, mean, var


@operator("dgcnn_ws::edge_aggregate_backward")
def edge_aggregate_backward(
    ab: Tensor,
    idx: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
) -> Tensor:
    """Return the gradient of ab."""
    return _kernels_for(ab).edge_aggregate_backward(ab, idx, arg, mean, g_extreme, g_mean, g_var)


@edge_aggregate_backward.register_fake
def _(ab: Tensor, *_: Tensor | None) -> Tensor:
    return ab.new_empty(ab.shape)


@operator("dgcnn_ws::scale_shift_act")
def scale_shift_act(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    """See `dgcnn_ws.ops.scale_shift_act`."""
    return _kernels_for(x).scale_shift_act(x, scale, shift, negative_slope)


@scale_shift_act.register_fake
def _(x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> Tensor:
    return x.new_empty(x.shape)


@operator("dgcnn_ws::scale_shift_act_backward")
def scale_shift_act_backward(
    g_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, scale and shift."""
    return _kernels_for(x).scale_shift_act_backward(g_out, x, scale, shift, negative_slope)


@operator("dgcnn_ws::column_moments")
def column_moments(y: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return extreme, arg, mean, var and a link: `dgcnn_ws.ops.column_moments` and the points of the extremes.

    `mean_act` of the same y takes the link, and hands through it, as if it were its gradient, what it adds to that of
    y: (B, 4, C), the `activated` of `column_moments_backward`. So both gradients are one pass over y. It is empty where
    the kernels have no such pass.
    """
    outputs = _kernels_for(y).column_moments(y, use_max)
    return *outputs, outputs[2].new_zeros(_link_shape(y))


@column_moments.register_fake
def _(y: Tensor, use_max: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    shape = (y.shape[0], y.shape[2])
    mean, var, link = _outputs(y, shape, shape, _link_shape(y))
    return y.new_empty(shape), y.new_empty(shape, dtype=torch.int64), mean, var, link


def _link_shape(y: Tensor) -> tuple[int, ...]:
    return (y.shape[0], 4, y.shape[2]) if hasattr(_kernels_for(y), "mean_act_parts") else (0,)


@operator("dgcnn_ws::column_moments_backward")
def column_moments_backward(
    y: Tensor,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
    activated: Tensor | None = None,
) -> Tensor:
    """Return the gradient of y."""
    more = [] if activated is None else [activated]
    return _kernels_for(y).column_moments_backward(y, arg, mean, g_extreme, g_mean, g_var, *more)


@column_moments_backward.register_fake
def _(y: Tensor, *_: Tensor | None) -> Tensor:
    return y.new_empty(y.shape)


@operator("dgcnn_ws::mean_act")
def mean_act(
    y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float, link: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return `dgcnn_ws.ops.mean_act`, and with the link of `column_moments` the means that its gradient is made of."""
    if link is None:
        return _kernels_for(y).mean_act(y, scale, shift, negative_slope), scale.new_empty(0)
    parts = _kernels_for(y).mean_act_parts(y, scale, shift, negative_slope)
    return parts[:, 0].clone(memory_format=torch.contiguous_format), parts


@mean_act.register_fake
def _(
    y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float, link: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    shape = (y.shape[0], y.shape[2])
    parts = scale.new_empty(0) if link is None else _outputs(y, (shape[0], 3, shape[1]))[0]
    return _outputs(y, shape)[0], parts


@operator("dgcnn_ws::mean_act_backward")
def mean_act_backward(
    g_out: Tensor, y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of y, scale and shift."""
    return _kernels_for(y).mean_act_backward(g_out, y, scale, shift, negative_slope)


@scale_shift_act_backward.register_fake
@mean_act_backward.register_fake
def _(g_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, negative_slope: float) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), scale.new_empty(scale.shape), shift.new_empty(shift.shape)


@operator("dgcnn_ws::snapshot")
def snapshot(x: Tensor) -> Tensor:
    """Return a copy that torch.compile keeps for the backward pass, where it would else read x again, then changed."""
    return x.clone()


@snapshot.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


# A backward pass in which gradients are enabled is one that will be differentiated again (`create_graph=True`): then it
# is the reference's, in torch's own operations, which have derivatives of every order.


def _save_edges(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)  # a missing gradient of mean and var skips the work on every edge
    ctx.save_for_backward(inputs[0], inputs[1], output[1], output[2])


def _edges_backward(
    ctx: Any, g_extreme: Tensor | None, _: None, g_mean: Tensor | None, g_var: Tensor | None
) -> tuple[Tensor | None, None, None]:
    run: Any = reference.edge_aggregate_backward if torch.is_grad_enabled() else edge_aggregate_backward
    return run(*ctx.saved_tensors, g_extreme, g_mean, g_var), None, None


def _save_columns(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], output[1], output[2])


def _columns_backward(
    ctx: Any,
    g_extreme: Tensor | None,
    _: None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
    activated: Tensor | None,
) -> tuple[Tensor | None, None]:
    run: Any = reference.column_moments_backward if torch.is_grad_enabled() else column_moments_backward
    return run(*ctx.saved_tensors, g_extreme, g_mean, g_var, activated), None


def _save_affine(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.negative_slope = inputs[3]
    ctx.save_for_backward(*inputs[:3])


def _scale_shift_act_backward(ctx: Any, g_out: Tensor) -> tuple[Tensor | None, ...]:
    run: Any = reference.scale_shift_act_backward if torch.is_grad_enabled() else scale_shift_act_backward
    return *run(g_out, *ctx.saved_tensors, ctx.negative_slope), None


def _save_mean(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    y, scale, shift, ctx.negative_slope, link = (*inputs, None)[:5]
    ctx.set_materialize_grads(False)
    ctx.linked = link is not None
    ctx.save_for_backward(y, scale, shift, output[1])


def _mean_act_backward(ctx: Any, g_out: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    *inputs, parts = ctx.saved_tensors
    if g_out is None:
        return None, None, None, None, None
    if not ctx.linked:
        run: Any = reference.mean_act_backward if torch.is_grad_enabled() else mean_act_backward
        return *run(g_out, *inputs, ctx.negative_slope), None, None
    y, scale, shift = inputs
    if torch.is_grad_enabled():
        parts = reference.mean_act_parts(y, scale, shift, ctx.negative_slope)
    g = g_out.to(parts.dtype)
    right = g / y.shape[1] * scale
    activated = torch.stack([scale.to(g.dtype), shift.to(g.dtype), right, right * ctx.negative_slope], dim=1)
    return None, (g * parts[:, 1]).to(scale.dtype), (g * parts[:, 2]).to(shift.dtype), None, activated


edge_aggregate.register_autograd(_edges_backward, setup_context=_save_edges)
column_moments.register_autograd(_columns_backward, setup_context=_save_columns)
scale_shift_act.register_autograd(_scale_shift_act_backward, setup_context=_save_affine)
mean_act.register_autograd(_mean_act_backward, setup_context=_save_mean)
