"""What no product over points can replace: layers after an edge block's first, and the mean over activated edges.

The edges are built a block of points at a time, in the forward pass and again in the backward pass; what is kept
between the two is one row a point. On every device this is plain torch around its products.

With y_1 the factored first layer, and layer l = 1..m of one scale and shift a cloud, one weight and bias:

    y_1,ij = a_j + b_i,    z_l = leaky_relu(scale_l y_l + shift_l),    y_{l+1} = weight_l z_l + bias_l
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgcnn_ws.ops.product import linear
from dgcnn_ws.ops.reference import arg_dtype, compute_dtype

BLOCK_BYTES = {"cpu": 2**21, "cuda": 2**28}  # of one layer's edges: within the cache, or enough to fill the device

Block = tuple[slice, slice]  # of clouds and of their points


def _blocks(ab: Tensor, idx: Tensor, weights: Sequence[Tensor]) -> Iterator[Block]:
    """Cut the points into blocks: as many whole clouds as fit, or a part of one."""
    batch, num_points, k = idx.shape
    width = max([ab.shape[2] // 2, *(len(weight) for weight in weights)])
    size = BLOCK_BYTES.get(ab.device.type, 2**28) // (compute_dtype(ab).itemsize * max(1, k * width))
    if size >= num_points:
        clouds = size // num_points
        for first in range(0, batch, clouds):
            yield slice(first, first + clouds), slice(None)
    else:
        for cloud in range(batch):
            for first in range(0, num_points, max(1, size)):
                yield slice(cloud, cloud + 1), slice(first, first + max(1, size))


def _first_layer(a: Tensor, b: Tensor, idx: Tensor) -> Tensor:
    """Return a_j + b_i (B, n, k, C) of the points that b (B, n, C) and idx (B, n, k) are about; a is (B, N, C)."""
    rows = a.flatten(0, 1).index_select(0, _rows(idx, a.shape[1]))
    return rows.view(*idx.shape, a.shape[2]) + b.unsqueeze(2)


def _rows(idx: Tensor, num_points: int) -> Tensor:
    clouds = torch.arange(len(idx), device=idx.device).view(-1, 1, 1)
    return (idx + clouds * num_points).flatten()


def _affine(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return y * scale.to(y.dtype)[:, None, None] + shift.to(y.dtype)[:, None, None]


def _product(z: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Multiply in the features' type, which autocast may have narrowed."""
    bias = None if bias is None else bias.to(dtype)
    return linear(z.to(dtype), weight.to(dtype), bias).to(z.dtype)


class _Edges:
    """The layers of a block of points, and the gradients of all that they are made of."""

    def __init__(
        self,
        ab: Tensor,
        idx: Tensor,
        scales: Sequence[Tensor],
        shifts: Sequence[Tensor],
        weights: Sequence[Tensor],
        biases: Sequence[Tensor],
        slope: float,
    ) -> None:
        self.dtype, self.slope = ab.dtype, slope
        self.a, self.b = (part.contiguous() for part in ab.to(compute_dtype(ab)).chunk(2, dim=-1))
        self.idx, self.scales, self.shifts = idx, scales, shifts
        self.weights = weights
        self.biases: list[Tensor | None] = [*biases] or [None] * len(weights)

    def outputs(self, block: Block) -> list[Tensor]:
        """Return y_1 ... y_{m+1} (B, n, k, C_l) of a block."""
        clouds, points = block
        y = [_first_layer(self.a[clouds], self.b[clouds, points], self.idx[clouds, points])]
        for scale, shift, weight, bias in zip(self.scales, self.shifts, self.weights, self.biases, strict=False):
            z = F.leaky_relu_(_affine(y[-1], scale[clouds], shift[clouds]), self.slope)
            y.append(_product(z, weight, bias, self.dtype))
        return y

    def start_gradients(self) -> None:
        self.g_a, self.g_b = torch.zeros_like(self.a), torch.empty_like(self.b)
        self.g_scales = [torch.zeros_like(scale, dtype=self.a.dtype) for scale in self.scales]
        self.g_shifts = [torch.zeros_like(shift, dtype=self.a.dtype) for shift in self.shifts]
        self.g_weights = [torch.zeros_like(weight, dtype=self.a.dtype) for weight in self.weights]
        self.g_biases = [torch.zeros_like(bias, dtype=self.a.dtype) for bias in self.biases if bias is not None]

    def activation_backward(self, block: Block, layer: int, y: Tensor, g_z: Tensor) -> Tensor:
        """Return the gradient of y_l from that of z_l, and add up those of scale and shift."""
        clouds, _ = block
        scale, shift = self.scales[layer][clouds], self.shifts[layer][clouds]
        g_z = torch.where(_affine(y, scale, shift) > 0, g_z, self.slope * g_z)
        self.g_scales[layer][clouds] += (g_z * y).sum((1, 2))
        self.g_shifts[layer][clouds] += g_z.sum((1, 2))
        return g_z * scale.to(y.dtype)[:, None, None]

    def backward(self, block: Block, y: list[Tensor], g_y: Tensor) -> None:
        """Add up the gradients that reach a block through g_y, the gradient of its last layer's output."""
        clouds, points = block
        for layer in reversed(range(len(self.weights))):
            scale, shift = self.scales[layer][clouds], self.shifts[layer][clouds]
            z = F.leaky_relu_(_affine(y[layer], scale, shift), self.slope)
            columns, g_columns = z.flatten(0, 2).to(self.dtype), g_y.flatten(0, 2).to(self.dtype)
            # The transpose of gᵀz: oneDNN is fastest with the short side first.
            self.g_weights[layer] += linear(columns.t(), g_columns.t()).t()
            if self.g_biases:
                self.g_biases[layer] += g_y.sum((0, 1, 2))
            g_z = _product(g_y, self.weights[layer].t(), None, self.dtype)
            g_y = self.activation_backward(block, layer, y[layer], g_z)
        self.g_b[clouds, points] = g_y.sum(2)
        rows = _rows(self.idx[clouds, points], self.a.shape[1])
        _add_rows(self.g_a[clouds].flatten(0, 1), rows, g_y.flatten(0, 2))

    def gradients(self) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        biases = [bias for bias in self.biases if bias is not None]
        lists = (
            [g.to(of.dtype) for g, of in zip(g_list, of_list, strict=True)]
            for g_list, of_list in (
                (self.g_scales, self.scales),
                (self.g_shifts, self.shifts),
                (self.g_weights, self.weights),
                (self.g_biases, biases),
            )
        )
        return torch.cat([self.g_a, self.g_b], dim=-1).to(self.dtype), *lists  # type: ignore[return-value]


def _add_rows(total: Tensor, rows: Tensor, values: Tensor) -> None:
    """Add values (E, C) to the rows (E,) of total (R, C), in an order that repeats."""
    if total.device.type == "cpu":
        total.index_add_(0, rows, values)
        return
    reached, order = torch.sort(rows, stable=True)
    bounds = torch.searchsorted(reached, torch.arange(len(total) + 1, device=rows.device))
    total += torch.segment_reduce(values[order], "sum", offsets=bounds, initial=0)


Lists = Sequence[Tensor]
Gradients = tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


@torch.library.custom_op("dgcnn_ws::layers_aggregate", mutates_args=())
def layers_aggregate(
    ab: Tensor,
    idx: Tensor,
    scales: Lists,
    shifts: Lists,
    weights: Lists,
    biases: Lists,
    slope: float,
    use_max: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return extreme, arg (B, N, C), mean, var (B, C) of y_{m+1}: see `dgcnn_ws.ops.layers_aggregate`."""
    edges = _Edges(ab, idx, scales, shifts, weights, biases, slope)
    (batch, num_points, k), channels = idx.shape, len(weights[-1])
    sign = use_max.to(edges.a.dtype) * 2 - 1
    extreme = edges.a.new_empty(batch, num_points, channels)
    arg = torch.empty(extreme.shape, dtype=arg_dtype(k), device=ab.device)
    means = extreme.new_zeros(batch, channels, dtype=torch.float64)
    squares, count = torch.zeros_like(means), 0
    for clouds, points in _blocks(ab, idx, weights):
        y = edges.outputs((clouds, points))[-1]
        best, place = (y * sign).max(2)
        extreme[clouds, points], arg[clouds, points] = best * sign, place.to(arg.dtype)
        # Pooled block by block: squares about a block's own mean do not cancel.
        mean = y.mean((1, 2), keepdim=True)
        square = (y - mean).square().sum((1, 2), dtype=torch.float64)
        edges_here = y.shape[1] * k
        count = edges_here if points.start in (None, 0) else count + edges_here
        gap = mean.double().flatten(1) - means[clouds]
        means[clouds] += gap * (edges_here / count)
        squares[clouds] += square + gap.square() * (edges_here * (count - edges_here) / count)
    variance = squares / max(1, num_points * k)
    return extreme.to(ab.dtype), arg, means.to(extreme.dtype), variance.to(extreme.dtype)


@layers_aggregate.register_fake
def _(
    ab: Tensor, idx: Tensor, scales: Lists, shifts: Lists, weights: Lists, biases: Lists, slope: float, use_max: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, num_points, k = idx.shape
    extreme = ab.new_empty((batch, num_points, weights[-1].shape[0]))
    arg = ab.new_empty(extreme.shape, dtype=arg_dtype(k))
    mean, var = (ab.new_empty((batch, extreme.shape[2]), dtype=compute_dtype(ab)) for _ in range(2))
    return extreme, arg, mean, var


@torch.library.custom_op("dgcnn_ws::layers_aggregate_backward", mutates_args=())
def layers_aggregate_backward(
    ab: Tensor,
    idx: Tensor,
    scales: Lists,
    shifts: Lists,
    weights: Lists,
    biases: Lists,
    slope: float,
    arg: Tensor,
    mean: Tensor,
    g_extreme: Tensor | None,
    g_mean: Tensor | None,
    g_var: Tensor | None,
) -> Gradients:
    """Return the gradients of ab, scales, shifts, weights and biases; one that is None counts as zero."""
    edges = _Edges(ab, idx, scales, shifts, weights, biases, slope)
    edges.start_gradients()
    count = idx.shape[1] * idx.shape[2]
    for clouds, points in _blocks(ab, idx, weights):
        y = edges.outputs((clouds, points))
        g_y = torch.zeros_like(y[-1])
        if g_var is not None:
            g_y += g_var[clouds, None, None] * (2 / count) * (y[-1] - mean[clouds, None, None])
        if g_mean is not None:
            g_y += g_mean[clouds, None, None] / count
        if g_extreme is not None:
            chosen = arg[clouds, points].long().unsqueeze(2)
            g_y.scatter_add_(2, chosen, g_extreme[clouds, points].to(g_y.dtype).unsqueeze(2))
        edges.backward((clouds, points), y, g_y)
    return edges.gradients()


@torch.library.custom_op("dgcnn_ws::edges_mean", mutates_args=())
def edges_mean(
    ab: Tensor, idx: Tensor, scales: Lists, shifts: Lists, weights: Lists, biases: Lists, slope: float
) -> Tensor:
    """Return the mean (B, N, C) over the neighbours of z_{m+1}: see `dgcnn_ws.ops.edges_mean`."""
    edges = _Edges(ab, idx, scales, shifts, weights, biases, slope)
    out = edges.a.new_empty(*idx.shape[:2], scales[-1].shape[1])
    for clouds, points in _blocks(ab, idx, weights):
        y = edges.outputs((clouds, points))[-1]
        out[clouds, points] = F.leaky_relu_(_affine(y, scales[-1][clouds], shifts[-1][clouds]), slope).mean(2)
    return out.to(ab.dtype)


@edges_mean.register_fake
def _(ab: Tensor, idx: Tensor, scales: Lists, shifts: Lists, weights: Lists, biases: Lists, slope: float) -> Tensor:
    return ab.new_empty((*idx.shape[:2], scales[-1].shape[1]))


@torch.library.custom_op("dgcnn_ws::edges_mean_backward", mutates_args=())
def edges_mean_backward(
    ab: Tensor,
    idx: Tensor,
    scales: Lists,
    shifts: Lists,
    weights: Lists,
    biases: Lists,
    slope: float,
    g_out: Tensor,
) -> Gradients:
    """Return the gradients of ab, scales, shifts, weights and biases."""
    edges = _Edges(ab, idx, scales, shifts, weights, biases, slope)
    edges.start_gradients()
    for clouds, points in _blocks(ab, idx, weights):
        y = edges.outputs((clouds, points))
        g_z = (g_out[clouds, points].to(edges.a.dtype) / idx.shape[2]).unsqueeze(2)
        g_y = edges.activation_backward((clouds, points), len(weights), y[-1], g_z)
        edges.backward((clouds, points), y, g_y)
    return edges.gradients()


@layers_aggregate_backward.register_fake
@edges_mean_backward.register_fake
def _(ab: Tensor, idx: Tensor, scales: Lists, shifts: Lists, weights: Lists, biases: Lists, *_: Any) -> Gradients:
    lists = ([of.new_empty(of.shape) for of in tensors] for tensors in (scales, shifts, weights, biases))
    return ab.new_empty(ab.shape), *lists  # type: ignore[return-value]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ab, idx, *lists, slope = inputs[:7]
    ctx.set_materialize_grads(False)
    ctx.slope, ctx.lengths = slope, [len(tensors) for tensors in lists]
    extra = output[1:3] if isinstance(output, tuple) else ()  # arg and mean
    ctx.save_for_backward(ab, idx, *extra, *(tensor for tensors in lists for tensor in tensors))


def _saved(ctx: Any, extra: int) -> tuple[Any, ...]:
    ab, idx, *rest = ctx.saved_tensors
    flat = iter(rest[extra:])
    lists = [[next(flat) for _ in range(length)] for length in ctx.lengths]
    return ab, idx, *lists, ctx.slope, *rest[:extra]


def _layers_backward(
    ctx: Any, g_extreme: Tensor | None, _: None, g_mean: Tensor | None, g_var: Tensor | None
) -> tuple[Any, ...]:
    g_ab, *g_lists = layers_aggregate_backward(*_saved(ctx, 2), g_extreme, g_mean, g_var)
    return g_ab, None, *g_lists, None, None


def _mean_backward(ctx: Any, g_out: Tensor) -> tuple[Any, ...]:
    g_ab, *g_lists = edges_mean_backward(*_saved(ctx, 0), g_out)
    return g_ab, None, *g_lists, None


layers_aggregate.register_autograd(_layers_backward, setup_context=_save)
edges_mean.register_autograd(_mean_backward, setup_context=_save)
