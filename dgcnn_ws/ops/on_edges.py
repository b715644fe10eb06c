"""What no product over points can replace: layers after an edge block's first, and the mean over activated edges.

The edges are built a block of points at a time, in the forward pass and again in the backward pass; what is kept
between the two is one row a point. With y_1 the factored first layer, and layer l = 1..m of one scale and shift a
cloud, one weight and bias:

    y_1,ij = a_j + b_i,    z_l = leaky_relu(scale_l y_l + shift_l),    y_{l+1} = weight_l z_l + bias_l
"""

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dgcnn_ws.ops import literal, on_edges_reference, operators
from dgcnn_ws.ops.layers import Layers
from dgcnn_ws.ops.on_edges_reference import affine, affine_backward, by_cloud
from dgcnn_ws.ops.product import linear
from dgcnn_ws.ops.reference import arg_dtype, compute_dtype
from dgcnn_ws.ops.torch_operator import operator

BLOCK_BYTES = {"cpu": 2**21, "cuda": 2**28}  # of one layer's edges: within the cache, or enough to fill the device


def _passes_for(x: Tensor) -> ModuleType:
    if x.device.type == "cpu" and operators.compiled_on(x):
        from dgcnn_ws.ops import on_edges_cpu  # needs a compiler

        return on_edges_cpu
    return on_edges_reference


class _Edges:
    """The layers of a block of points, and the gradients of all that they are made of."""

    def __init__(self, ab: Tensor, idx: Tensor, layers: Layers) -> None:
        self.passes, self.type = _passes_for(ab), ab.dtype
        self.ab, self.idx = ab.detach().to(compute_dtype(ab)).contiguous(), idx.contiguous()
        self.scales, self.shifts, self.weights, self.biases, self.slope = layers
        self.num_points = idx.shape[1]

    def blocks(self) -> Iterator[tuple[int, int]]:
        """Cut all B N points into blocks: as many whole clouds as fit, or a part of one."""
        batch, num_points, k = self.idx.shape
        width = max([self.ab.shape[2] // 2, *(len(weight) for weight in self.weights)])
        size = BLOCK_BYTES.get(self.ab.device.type, 2**28) // (self.ab.element_size() * max(1, k * width))
        if size >= num_points:
            step = size // num_points * num_points
            for first in range(0, batch * num_points, step):
                yield first, min(first + step, batch * num_points)
        else:
            for cloud in range(0, batch * num_points, num_points):
                for first in range(cloud, cloud + num_points, max(1, size)):
                    yield first, min(first + max(1, size), cloud + num_points)

    def outputs(self, first: int, last: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return z_1 ... z_m and y_2 ... y_{m+1} (n, k, C_l) of a block; m = 0 gives z_1 alone."""
        z = [self.passes.activated(self.ab, self.idx, self.scales[0], self.shifts[0], self.slope, first, last)]
        y: list[Tensor] = []
        for layer, weight in enumerate(self.weights):
            if layer:
                z.append(self.activation(layer, y[-1], first))
            bias = self.biases[layer] if self.biases else None
            y.append(self._product(z[-1], weight, bias))
        return z, y

    def activation(self, layer: int, y: Tensor, first: int) -> Tensor:
        scale, shift = self.scales[layer], self.shifts[layer]
        return F.leaky_relu_(affine(y, self.num_points, scale, shift, first), self.slope)

    def _product(self, z: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiply in the features' type, which autocast may have narrowed."""
        bias = None if bias is None else bias.to(self.type)
        return linear(z.to(self.type), weight.to(self.type), bias).to(z.dtype)

    def start_gradients(self) -> None:
        self.g_ab = torch.zeros_like(self.ab)
        self.g_lists = [
            [torch.zeros_like(tensor, dtype=self.ab.dtype) for tensor in tensors]
            for tensors in (self.scales, self.shifts, self.weights, self.biases)
        ]

    def add_sums(self, layer: int, sums: Tensor, first: int) -> None:
        """Add a block's part of the gradients of a layer's scale and shift."""
        parts, clouds = by_cloud(sums, self.num_points, first)
        g_scale, g_shift = parts.sum(1).unbind(1)
        self.g_lists[0][layer][clouds] += g_scale
        self.g_lists[1][layer][clouds] += g_shift

    def activation_backward(self, layer: int, y: Tensor, first: int, g_z: Tensor) -> Tensor:
        """Return the gradient of y_l from that of z_l, l > 1."""
        scale, shift = self.scales[layer], self.shifts[layer]
        g_y, sums = affine_backward(y, self.num_points, scale, shift, self.slope, first, g_z)
        self.add_sums(layer, sums, first)
        return g_y

    def backward(self, first: int, z: list[Tensor], y: list[Tensor], g: Tensor) -> None:
        """Add up the gradients that reach a block through g, that of y_{m+1}; of z_1, for m = 0."""
        for layer in reversed(range(len(self.weights))):
            rows, g_rows = z[layer].flatten(0, 1).to(self.type), g.flatten(0, 1).to(self.type)
            # The transpose of gᵀz: oneDNN is fastest with the short side first.
            self.g_lists[2][layer] += linear(rows.t(), g_rows.t()).t()
            if self.biases:
                self.g_lists[3][layer] += g.sum((0, 1))
            g = self._product(g, self.weights[layer].t())
            if layer:
                g = self.activation_backward(layer, y[layer - 1], first, g)
        inputs = self.ab, self.idx, self.scales[0], self.shifts[0], self.slope
        self.add_sums(0, self.passes.activated_backward(*inputs, first, g.contiguous(), self.g_ab), first)

    def gradients(self) -> "Gradients":
        lists = (
            [g.to(of.dtype) for g, of in zip(g_list, of_list, strict=True)]
            for g_list, of_list in zip(self.g_lists, (self.scales, self.shifts, self.weights, self.biases), strict=True)
        )
        return self.g_ab.to(self.type), *lists  # type: ignore[return-value]


Lists = Sequence[Tensor]
Gradients = tuple[Tensor, list[Tensor], list[Tensor], list[Tensor], list[Tensor]]


@operator("dgcnn_ws::layers_aggregate")
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
    edges = _Edges(ab, idx, Layers(scales, shifts, weights, biases, slope))
    (batch, num_points, k), channels = idx.shape, len(weights[-1])
    extreme = edges.ab.new_empty(batch, num_points, channels)
    arg = torch.empty(extreme.shape, dtype=arg_dtype(k), device=ab.device)
    centre = extreme.new_zeros(batch, channels)
    sums = torch.zeros(2, batch, channels, dtype=torch.float64, device=ab.device)
    for first, last in edges.blocks():
        y = edges.outputs(first, last)[1][-1]
        parts, clouds = by_cloud(y, num_points, first)
        if first % num_points == 0:  # squares about a mean of some of a cloud's edges do not cancel
            centre[clouds] = parts[:, :: max(1, parts.shape[1] // 16)].mean((1, 2))
        here = slice(first, last)
        found = edges.passes.extremes(y, num_points, use_max, centre, first)
        extreme.flatten(0, 1)[here], arg.flatten(0, 1)[here] = found[:2]
        sums[:, clouds] += by_cloud(found[2], num_points, first)[0].sum(1, dtype=torch.float64).transpose(0, 1)
    offset, square = sums / max(1, num_points * k)
    mean, var = offset + centre, (square - offset * offset).clamp_min_(0)
    return extreme.to(ab.dtype), arg, mean.to(extreme.dtype), var.to(extreme.dtype)


@layers_aggregate.register_fake
def _(
    ab: Tensor, idx: Tensor, scales: Lists, shifts: Lists, weights: Lists, biases: Lists, slope: float, use_max: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, num_points, k = idx.shape
    extreme = ab.new_empty((batch, num_points, weights[-1].shape[0]))
    arg = ab.new_empty(extreme.shape, dtype=arg_dtype(k))
    mean, var = (ab.new_empty((batch, extreme.shape[2]), dtype=compute_dtype(ab)) for _ in range(2))
    return extreme, arg, mean, var


@operator("dgcnn_ws::layers_aggregate_backward")
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
    edges = _Edges(ab, idx, Layers(scales, shifts, weights, biases, slope))
    edges.start_gradients()
    (_, num_points, k), zero = idx.shape, torch.zeros_like(mean)
    slope_of_y = zero if g_mean is None else g_mean / (num_points * k)
    curve = zero if g_var is None else g_var * (2 / (num_points * k))
    g_points = torch.zeros_like(arg, dtype=mean.dtype) if g_extreme is None else g_extreme
    for first, last in edges.blocks():
        z, y = edges.outputs(first, last)
        chosen = arg.flatten(0, 1)[first:last], g_points.flatten(0, 1)[first:last]
        g_y = edges.passes.extremes_backward(y[-1], num_points, mean, slope_of_y, curve, *chosen, first)
        edges.backward(first, z, y, g_y)
    return edges.gradients()


@operator("dgcnn_ws::edges_mean")
def edges_mean(
    ab: Tensor, idx: Tensor, scales: Lists, shifts: Lists, weights: Lists, biases: Lists, slope: float
) -> Tensor:
    """Return the mean (B, N, C) over the neighbours of z_{m+1}: see `dgcnn_ws.ops.edges_mean`."""
    edges = _Edges(ab, idx, Layers(scales, shifts, weights, biases, slope))
    out = edges.ab.new_empty(*idx.shape[:2], scales[-1].shape[1])
    for first, last in edges.blocks():
        z, y = edges.outputs(first, last)
        activated = edges.activation(len(weights), y[-1], first) if y else z[0]
        out.flatten(0, 1)[first:last] = activated.mean(1)
    return out.to(ab.dtype)


@edges_mean.register_fake
def _(ab: Tensor, idx: Tensor, scales: Lists, shifts: Lists, weights: Lists, biases: Lists, slope: float) -> Tensor:
    return ab.new_empty((*idx.shape[:2], scales[-1].shape[1]))


@operator("dgcnn_ws::edges_mean_backward")
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
    edges = _Edges(ab, idx, Layers(scales, shifts, weights, biases, slope))
    edges.start_gradients()
    g_points = (g_out.to(edges.ab.dtype) / idx.shape[2]).flatten(0, 1)
    for first, last in edges.blocks():
        z, y = edges.outputs(first, last)
        g = g_points[first:last].unsqueeze(1).expand(-1, idx.shape[2], -1)
        if y:
            g = edges.activation_backward(len(weights), y[-1], first, g)
        edges.backward(first, z, y, g)
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


def _saved(ctx: Any, extra: int) -> tuple[Tensor, Tensor, Layers, list[Tensor]]:
    ab, idx, *rest = ctx.saved_tensors
    flat = iter(rest[extra:])
    scales, shifts, weights, biases = ([next(flat) for _ in range(length)] for length in ctx.lengths)
    return ab, idx, Layers(scales, shifts, weights, biases, ctx.slope), rest[:extra]


def _layers_backward(
    ctx: Any, g_extreme: Tensor | None, _: None, g_mean: Tensor | None, g_var: Tensor | None
) -> tuple[Any, ...]:
    ab, idx, layers, (arg, mean) = _saved(ctx, 2)
    g_outputs = g_extreme, g_mean, g_var
    if torch.is_grad_enabled():  # someone differentiates this gradient again: see `literal`
        outputs = literal.layers_aggregate(ab, idx, layers, arg=arg)
        g_ab, *g_lists = literal.gradients(ab, layers, outputs, g_outputs)
    else:
        g_ab, *g_lists = layers_aggregate_backward(ab, idx, *layers.lists(), layers.slope, arg, mean, *g_outputs)
    return g_ab, None, *g_lists, None, None


def _mean_backward(ctx: Any, g_out: Tensor) -> tuple[Any, ...]:
    ab, idx, layers, _ = _saved(ctx, 0)
    if torch.is_grad_enabled():
        g_ab, *g_lists = literal.gradients(ab, layers, (literal.edges_mean(ab, idx, layers),), (g_out,))
    else:
        g_ab, *g_lists = edges_mean_backward(ab, idx, *layers.lists(), layers.slope, g_out)
    return g_ab, None, *g_lists, None


layers_aggregate.register_autograd(_layers_backward, setup_context=_save)
edges_mean.register_autograd(_mean_backward, setup_context=_save)
