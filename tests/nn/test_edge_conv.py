"""EdgeConv against loops over points and neighbours, and its two backends against each other."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn import NORMS, BatchChannelNorm, EdgeConv
from dgcnn_ws.ops import on_edges

Array = NDArray[np.float64]
C_IN, C_OUT, GROUPS = 3, 12, 4
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
ACTIVATIONS = {"leaky": lambda: nn.LeakyReLU(0.2), "relu": nn.ReLU}


def block(
    norm: str | None,
    backend: str,
    dtype: torch.dtype = torch.float64,
    channels: int | tuple[int, ...] = C_OUT,
    **kwargs: object,
) -> EdgeConv:
    """Return an EdgeConv whose norms have factors of both signs and statistics of their own."""
    torch.manual_seed(1)
    module = EdgeConv(C_IN, channels, 5, norm, backend, groups=GROUPS, **kwargs)
    for layer_norm in [layer_norm for _, layer_norm in module.layers() if norm]:
        for name, tensor in layer_norm.state_dict().items():
            if name.endswith(("weight", "bias", "mean")):
                tensor.normal_()
            elif name.endswith("var"):
                tensor.uniform_(0.5, 2)
        layer_norm.weight.data[0].abs_().neg_()
        assert (layer_norm.weight < 0).any() and (layer_norm.weight > 0).any()
    return module.to(dtype)


def cloud(batch: int = 2, points: int = 17, dtype: torch.dtype = torch.float64, seed: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, C_IN, points, generator=generator, dtype=torch.float64).to(dtype)


def graph(batch: int, points: int, k: int) -> Tensor:
    """Return k distinct neighbours for each point, in no order."""
    return torch.rand(batch, points, points, generator=torch.Generator().manual_seed(3)).argsort(2)[..., :k]


def step(module: EdgeConv, x: Tensor, idx: Tensor | None) -> dict[str, Tensor]:
    """Return all that a forward and backward pass leaves: output, gradients, statistics."""
    x = x.clone().requires_grad_()
    out = module(x, idx)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(4)).to(out))
    assert x.grad is not None
    gradients = {f"gradient of {name}": value.grad for name, value in module.named_parameters()}
    return {"output": out.detach(), "gradient of x": x.grad, **gradients, **dict(module.named_buffers())}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=tolerance * scale, msg=lambda text, name=name: f"{name}: {text}"
        )


def nearest(points: Array, k: int) -> list[list[int]]:
    distances = [[math.dist(p, q) for q in points] for p in points]
    return [sorted(range(len(row)), key=row.__getitem__)[:k] for row in distances]


def group_norm(y: Array, weight: Array, bias: Array, eps: float) -> Array:
    """Group norm of y (B, N, k, C) with a factor and a term per channel."""
    out, size = np.empty_like(y), C_OUT // GROUPS
    for b in range(len(y)):
        for c in range(C_OUT):
            group = y[b, :, :, c // size * size : (c // size + 1) * size]
            out[b, :, :, c] = (y[b, :, :, c] - group.mean()) / np.sqrt(group.var() + eps) * weight[c] + bias[c]
    return out


def normalise(y: Array, norm: nn.Module) -> Array:
    state = {name: value.double().numpy() for name, value in norm.state_dict().items()}
    weight, bias = state["weight"], state["bias"]
    if isinstance(norm, nn.GroupNorm):
        return group_norm(y, weight, bias, norm.eps)
    if isinstance(norm, BatchChannelNorm):
        y = (y - state["running_mean"]) / np.sqrt(state["running_var"] + norm.eps) * weight + bias
        size = C_OUT // GROUPS
        return group_norm(y, state["group_weight"].repeat(size), state["group_bias"].repeat(size), norm.eps)
    mean, var = state["running_mean"], state["running_var"]
    if norm.training:
        mean, var = y.mean((0, 1, 2)), y.var((0, 1, 2))
    return (y - mean) / np.sqrt(var + norm.eps) * weight + bias


def loops(module: EdgeConv, x: Tensor, standardized: bool, slope: float) -> Array:
    """EdgeConv as it is printed: for every point, for every neighbour."""
    weight = module.conv.weight.detach().double().flatten(1).numpy()  # (C', 2C)
    if standardized:
        weight = np.stack([(row - row.mean()) / (row.std(ddof=1) + 1e-5) for row in weight])
    y = np.empty((len(x), x.shape[2], module.k, C_OUT))
    for b, points in enumerate(x.double().transpose(1, 2).numpy()):
        for i, neighbours in enumerate(nearest(points, module.k)):
            for slot, j in enumerate(neighbours):
                y[b, i, slot] = weight @ np.concatenate([points[j] - points[i], points[i]])
    if module.conv.bias is not None:
        y += module.conv.bias.detach().numpy()
    y = normalise(y, module.norm)
    return np.where(y > 0, y, slope * y).max(2).transpose(0, 2, 1)  # (B, C', N)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("norm, act, slope", [*((n, "leaky", 0.2) for n in NORMS), ("gn", "relu", 0.0)])
def test_equals_loops_over_points_and_neighbours(
    norm: str, backend: str, training: bool, act: str, slope: float
) -> None:
    module = block(norm, backend, act=ACTIVATIONS[act](), bias=act == "relu").train(training)
    expected = loops(module, cloud(), norm.startswith("ws_"), slope)  # before the statistics move
    np.testing.assert_allclose(module(cloud()).detach().numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_backends_agree_on_output_gradients_and_statistics(
    norm: str, act: str, training: bool, dtype: torch.dtype
) -> None:
    reference, fused = (
        block(norm, backend, dtype, act=ACTIVATIONS[act](), bias=act == "relu").train(training)
        for backend in ("reference", "fused")
    )
    for seed in (2, 5):  # the second step meets the statistics that the first one left
        x = cloud(dtype=dtype, seed=seed)
        assert_same(step(fused, x, None), step(reference, x, None), TOLERANCE[dtype])


@pytest.mark.parametrize("batch, points, k", [(1, 9, 1), (1, 9, 2), (3, 9, 9), (2, 1, 1), (2, 33, 21)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", NORMS)
def test_backends_agree_on_a_given_graph(norm: str, training: bool, batch: int, points: int, k: int) -> None:
    x, idx = cloud(batch, points), graph(batch, points, k)
    expected = step(block(norm, "reference").train(training), x, idx)
    assert_same(step(block(norm, "fused").train(training), x, idx), expected, 1e-9)
    assert_same(step(block(norm, "fused").train(training), x, idx.int()), expected, 1e-9)
    assert_same(step(block(norm, "auto").train(training), x, idx), expected, 1e-9)


@pytest.mark.parametrize("copies", [2, 12])
@pytest.mark.parametrize("norm", NORMS)
def test_backends_agree_on_duplicate_points(norm: str, copies: int) -> None:
    x, idx = cloud(2, 12 // copies).repeat_interleave(copies, dim=2), graph(2, 12, 7)
    results = [step(block(norm, backend), x, idx) for backend in ("reference", "fused")]
    for result in results:  # which of two equal points a maximum's gradient goes to is a choice: add them up
        result["gradient of x"] = result["gradient of x"].unflatten(2, (-1, copies)).sum(3)
    assert_same(results[1], results[0], 1e-9)


def test_nearest_neighbours_is_the_graph_where_none_is_given() -> None:
    module, x = block("ws_gn", "auto"), cloud()
    idx = torch.tensor([nearest(points, 5) for points in x.transpose(1, 2).numpy()])
    torch.testing.assert_close(module(x), module(x, idx))
    assert not torch.allclose(module(x), module(x, graph(2, 17, 5)))


@pytest.mark.parametrize("norm", NORMS)
def test_state_dict_fits_either_backend(norm: str) -> None:
    trained, fresh = block(norm, "reference"), EdgeConv(C_IN, C_OUT, 5, norm, "fused", groups=GROUPS)
    trained(cloud())
    keys = fresh.double().load_state_dict(trained.state_dict())
    assert not keys.missing_keys and not keys.unexpected_keys
    assert {"conv.weight", "norm.weight", "norm.bias"} <= set(fresh.state_dict())
    torch.testing.assert_close(fresh.eval()(cloud()), trained.eval()(cloud()))


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_cloud_in_eval_mode_is_alone(norm: str, backend: str) -> None:
    module, x = block(norm, backend).eval(), cloud(3)
    torch.testing.assert_close(module(x), torch.cat([module(part) for part in x.split(1)]))


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_nan_stays_in_its_cloud(backend: str) -> None:
    module, x = block("ws_gn", backend), cloud()
    clean = module(x)
    x[0, 1, 4] = math.nan
    out = module(x)
    assert out[0].isnan().all(), "group statistics spread it"
    torch.testing.assert_close(out[1], clean[1])


@pytest.mark.parametrize("act", [nn.GELU(), nn.LeakyReLU(-0.5)])
def test_activation_that_is_not_monotone(act: nn.Module) -> None:
    expected = block("gn", "reference", act=act)(cloud())
    assert torch.equal(block("gn", "auto", act=act)(cloud()), expected)
    with pytest.raises(InputError, match=f"'fused' cannot move the maximum in front of {type(act).__name__}"):
        block("gn", "fused", act=act)


@pytest.mark.parametrize("norm", NORMS)
def test_autocast_keeps_statistics_precise(norm: str) -> None:
    x, idx = 3 + cloud(dtype=torch.float32), graph(2, 17, 5)
    exact = block(norm, "fused", torch.float32)(x, idx)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(norm, "fused", torch.float32)(x, idx)
    assert (out.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("norm", ["ws_gn", "bn"])
def test_compiles_without_graph_breaks(norm: str) -> None:
    torch.compiler.reset()
    compiled = block(norm, "auto")
    compiled.compile(fullgraph=True, backend="aot_eager")
    assert_same(step(compiled, cloud(), None), step(block(norm, "auto"), cloud(), None), 1e-9)


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize(
    "idx, message",
    [
        (torch.full((2, 17, 5), 17), "points to 17"),
        (torch.full((2, 17, 5), -1), "points to -1"),
        (torch.zeros(2, 17, 5), "torch.float32; point numbers"),
        (torch.zeros(2, 17, dtype=torch.int64), r"\(clouds, points, k\)"),
        (torch.zeros(2, 16, 5, dtype=torch.int64), "16 points; it is used with 2 of 17"),
    ],
)
def test_a_wrong_graph_is_refused(idx: Tensor, message: str, backend: str) -> None:
    with pytest.raises(InputError, match=message):
        block("gn", backend)(cloud(), idx)


# --- several convolutions, means, dilation, coordinates for the graph ---

DEEP = [(8, 12), (6, 8, 12)]


@pytest.fixture
def few_edges_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(on_edges.BLOCK_BYTES, "cpu", 3000)  # those of some 6 points


def mlp_by_hand(module: EdgeConv, x: Tensor, idx: Tensor, standardized: bool) -> Tensor:
    """Convolution, norm, LeakyReLU for each layer, on edges gathered one by one; the maximum or mean at the end."""
    edges = torch.stack(
        [
            torch.stack(
                [torch.cat([x[b, :, j] - x[b, :, i], x[b, :, i]]) for i in range(x.shape[2]) for j in idx[b, i]]
            )
            for b in range(len(x))
        ]
    ).unflatten(1, idx.shape[1:])  # (B, N, k, 2C)
    for conv, norm in module.layers():
        weight = conv.weight.flatten(1)
        if standardized:
            weight = (weight - weight.mean(1, keepdim=True)) / (weight.std(1, keepdim=True) + 1e-5)
        y = edges @ weight.T + (0 if conv.bias is None else conv.bias)
        edges = nn.functional.leaky_relu(torch.from_numpy(normalise_any(y.detach().numpy(), norm)), 0.2)
    return (edges.amax(2) if module.aggr == "max" else edges.mean(2)).transpose(1, 2)


def normalise_any(y: Array, norm: nn.Module) -> Array:
    if isinstance(norm, nn.Identity):
        return y
    if isinstance(norm, nn.GroupNorm):
        by_group = y.reshape(*y.shape[:3], norm.num_groups, -1)
        mean, var = by_group.mean((1, 2, 4), keepdims=True), by_group.var((1, 2, 4), keepdims=True)
        y = ((by_group - mean) / np.sqrt(var + norm.eps)).reshape(y.shape)
    else:
        y = (y - y.mean((0, 1, 2))) / np.sqrt(y.var((0, 1, 2)) + norm.eps)
    return y * norm.weight.detach().numpy() + norm.bias.detach().numpy()


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("aggr", ["max", "mean"])
@pytest.mark.parametrize("channels", [C_OUT, *DEEP])
@pytest.mark.parametrize("norm", ["ws_gn", "bn", None])
def test_layers_by_hand(norm: str | None, channels: int | tuple[int, ...], aggr: str, backend: str) -> None:
    module, x, idx = block(norm, backend, channels=channels, aggr=aggr, bias=True), cloud(), graph(2, 17, 5)
    expected = mlp_by_hand(module, x, idx, standardized=norm == "ws_gn")
    torch.testing.assert_close(module(x, idx).detach(), expected.detach(), rtol=0, atol=1e-9)


@pytest.mark.usefixtures("few_edges_at_a_time")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels, aggr", [((8, 12), "max"), ((8, 12), "mean"), ((6, 8, 12), "max"), (12, "mean")])
@pytest.mark.parametrize("norm", [*NORMS, None])
def test_backends_agree_on_deeper_blocks_and_means(
    norm: str | None, channels: int | tuple[int, ...], aggr: str, training: bool
) -> None:
    bias = norm is None
    reference, fused = (
        block(norm, backend, channels=channels, aggr=aggr, bias=bias).train(training)
        for backend in ("reference", "fused")
    )
    for seed in (2, 5):  # the second step meets the statistics that the first one left: moved once, by all edges
        x = cloud(3, seed=seed)
        assert_same(step(fused, x, None), step(reference, x, None), 1e-9)


@pytest.mark.parametrize("batch, points, k", [(1, 9, 1), (3, 9, 9), (2, 1, 1), (2, 33, 21)])
@pytest.mark.parametrize("aggr", ["max", "mean"])
def test_deeper_backends_agree_on_a_given_graph(batch: int, points: int, k: int, aggr: str) -> None:
    x, idx = cloud(batch, points), graph(batch, points, k)
    reference, fused = (block("ws_gn", backend, channels=(8, 12), aggr=aggr) for backend in ("reference", "fused"))
    assert_same(step(fused, x, idx), step(reference, x, idx), 1e-9)
    assert_same(step(fused.float(), x.float(), idx.int()), step(reference.float(), x.float(), idx), 1e-3)


def test_no_edge_is_kept_for_the_backward_pass() -> None:
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    module = EdgeConv(C_IN, (16, 24), 20, "ws_gn", "fused")
    x = torch.randn(1, C_IN, 200, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(x)
    assert max(kept) < 200 * 20 * 16, "fewer numbers than one layer has on its edges"
    assert max(kept) <= 200 * 2 * 24


def test_state_dict_of_one_convolution_has_no_other_keys() -> None:
    assert set(EdgeConv(3, 8).state_dict()) == {"conv.weight", "norm.weight", "norm.bias"}
    assert set(EdgeConv(3, [8]).state_dict()) == {"conv.weight", "norm.weight", "norm.bias"}
    deeper = {"deeper.0.conv.weight", "deeper.0.norm.weight", "deeper.0.norm.bias"}
    assert set(EdgeConv(3, [8, 16]).state_dict()) - set(EdgeConv(3, 8).state_dict()) == deeper


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_dilation_takes_every_dth_neighbour(dilation: int) -> None:
    module, x = block("ws_gn", "auto", dilation=dilation), cloud()
    every = [nearest(points, 4 * dilation + 1) for points in x.transpose(1, 2).numpy()]
    idx = torch.tensor(every)[:, :, ::dilation]
    assert idx.shape == (2, 17, 5)
    torch.testing.assert_close(module(x), module(x, idx))


def test_pos_is_for_the_graph_alone() -> None:
    module, x = block("ws_gn", "auto"), cloud()
    pos = torch.randn(2, 2, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(7), requires_grad=True)
    idx = torch.tensor([nearest(points, 5) for points in pos.detach().transpose(1, 2).numpy()])
    out = module(x, pos=pos)
    torch.testing.assert_close(out, module(x, idx))
    out.sum().backward()
    assert pos.grad is None
    with pytest.raises(InputError, match="give one of them"):
        module(x, idx, pos)
    with pytest.raises(InputError, match=r"pos \(2, 2, 16\) and x \(2, 3, 17\) differ"):
        module(x, pos=pos[..., 1:])


@pytest.mark.parametrize("kwargs", [{"aggr": "mean"}, {"dilation": 2}])
def test_deeper_blocks_compile_without_graph_breaks(kwargs: dict[str, object]) -> None:
    torch.compiler.reset()
    compiled, plain = (block("ws_gn", "auto", channels=(8, 12), **kwargs) for _ in range(2))
    compiled.compile(fullgraph=True, backend="aot_eager")
    assert_same(step(compiled, cloud(), None), step(plain, cloud(), None), 1e-9)


def test_deeper_blocks_under_autocast() -> None:
    x, idx = cloud(dtype=torch.float32), graph(2, 17, 5)
    exact = block("ws_gn", "fused", torch.float32, (8, 12))(x, idx)
    module = block("ws_gn", "fused", torch.float32, (8, 12))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x, idx)
    out.float().sum().backward()
    assert (out.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="aggr 'sum' is unknown"):
        EdgeConv(3, 8, aggr="sum")
    with pytest.raises(InputError, match="channels is empty"):
        EdgeConv(3, [])
    with pytest.raises(InputError, match="k=5 neighbours at dilation 5 need at least 21 points; this cloud has 17"):
        block("gn", "auto", dilation=5)(cloud())
    with pytest.raises(InputError, match="k=5 neighbours need at least 5 points; this cloud has 4"):
        block("gn", "auto")(cloud(2, 4))
    with pytest.raises(InputError, match="norm 'in' is unknown"):
        EdgeConv(3, 8, norm="in")
    with pytest.raises(InputError, match="backend 'fast' is unknown"):
        EdgeConv(3, 8, backend="fast")
    for options in ({"k": 0}, {"dilation": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            EdgeConv(3, 8, **options)
    for wrong in (torch.randn(3, 17), torch.randn(2, 4, 17), torch.randn(1, 2, 3, 17)):
        with pytest.raises(InputError, match=r"x is \(B, 3, N\) for this layer; this one has shape"):
            block("gn", "auto")(wrong)
    with pytest.raises(InputError, match="Points come last here: transpose it"):
        block("gn", "auto")(torch.randn(2, 17, 3))
