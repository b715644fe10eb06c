"""torch_geometric's conventions: against its own EdgeConv, the dense module, and clouds one by one."""

from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.nn import EdgeConv as GeometricEdgeConv
from torch_geometric.nn import Sequential, global_max_pool

from dgcnn_ws import EdgeConv as DenseEdgeConv
from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.nn import NORMS
from dgcnn_ws.nn.pyg import DynamicEdgeConv, EdgeConv

C_IN, WIDTHS, GROUPS, K = 3, (8, 12), 4, 4
SIZES = (9, 17, 17, 6, 30)  # two neighbours of one size, the others alone


Module = TypeVar("Module", bound=nn.Module)


def points(sizes: tuple[int, ...] = SIZES, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x = torch.randn(sum(sizes), C_IN, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x.to(dtype), torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))


def ready(module: Module) -> Module:
    """Return the module in float64, with factors of both signs in its norms."""
    generator = torch.Generator().manual_seed(2)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        if name.endswith("var"):
            tensor.abs_().add_(0.5)
    return module.double()


def knn_edges(x: Tensor, batch: Tensor, k: int = K) -> Tensor:
    """Return the edges from each point's k nearest in its cloud, in no order."""
    distances = torch.cdist(x, x).masked_fill(batch[:, None] != batch, float("inf"))
    sources = distances.argsort(1)[:, :k]
    edges = torch.stack([sources.flatten(), torch.arange(len(x)).repeat_interleave(k)])
    return edges[:, torch.randperm(edges.shape[1], generator=torch.Generator().manual_seed(3))]


def any_edges(x: Tensor, count: int = 150) -> Tensor:
    """Return edges from anywhere to anywhere but the last points: some of them twice, some points isolated."""
    sources = torch.randint(0, len(x), (count,), generator=torch.Generator().manual_seed(4))
    targets = torch.randint(0, len(x) - 5, (count,), generator=torch.Generator().manual_seed(5))
    return torch.stack([sources, targets])


def step(module: nn.Module, x: Tensor, *graph: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = module(x, *graph)
    out.square().sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad for p in module.parameters()), *module.buffers()]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def geometric(block: EdgeConv, aggr: str) -> GeometricEdgeConv:
    """Return torch_geometric's layer on the same weights: its first columns are x_i's, ours x_j − x_i's."""
    linears = [nn.Linear(conv.weight.shape[1], len(conv.weight)).double() for conv, _ in block.layers()]
    layers = [part for linear in linears for part in (linear, nn.LeakyReLU(0.2))]
    layer = GeometricEdgeConv(nn.Sequential(*layers), aggr=aggr)  # draws new weights
    for linear, (conv, _) in zip(linears, block.layers(), strict=True):
        weight = conv.weight.detach().flatten(1)
        linear.weight.data = torch.cat(weight.chunk(2, dim=1)[::-1], dim=1) if conv is block.conv else weight
        linear.bias.data = conv.bias.detach()
    return layer


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("aggr", ["max", "mean"])
@pytest.mark.parametrize("channels", [8, WIDTHS])
@pytest.mark.parametrize("graph", ["neighbours", "any"])
def test_equals_torch_geometric_without_a_norm(
    graph: str, channels: int | tuple[int, ...], aggr: str, backend: str
) -> None:
    block = ready(EdgeConv(C_IN, channels, None, backend, aggr=aggr, bias=True))
    theirs = geometric(block, aggr)
    x, batch = points()
    edge_index = knn_edges(x, batch) if graph == "neighbours" else any_edges(x)
    found, expected = step(block, x, edge_index, batch), step(theirs, x, edge_index)
    assert_same(found[:2], expected[:2])
    linears = [layer for layer in theirs.nn if isinstance(layer, nn.Linear)]
    for depth, ((conv, _), linear) in enumerate(zip(block.layers(), linears, strict=True)):
        gradient = conv.weight.grad.flatten(1)
        gradient = gradient if depth else torch.cat(gradient.chunk(2, dim=1)[::-1], dim=1)
        torch.testing.assert_close(gradient, linear.weight.grad)
        torch.testing.assert_close(conv.bias.grad, linear.bias.grad)
    if graph == "any":
        assert (found[0][-5:] == 0).all(), "isolated points give 0"


def test_bipartite_equals_torch_geometric() -> None:
    block = ready(EdgeConv(C_IN, WIDTHS, None, bias=True))
    (x, _), y = points(), points((7,))[0]
    edge_index = torch.stack([any_edges(x)[0], any_edges(x)[1] % 7])
    torch.testing.assert_close(block((x, y), edge_index), geometric(block, "max")((x, y), edge_index))
    both = block((x, x), any_edges(x))
    torch.testing.assert_close(both, geometric(block, "max")((x, x), any_edges(x)))
    torch.testing.assert_close(both, block(x, any_edges(x)))


@pytest.mark.parametrize("norm", [*NORMS, None])
@pytest.mark.parametrize("channels", [8, WIDTHS])
def test_equals_the_dense_module_on_equal_sizes(norm: str | None, channels: int | tuple[int, ...]) -> None:
    dense = ready(DenseEdgeConv(C_IN, channels, K, norm, groups=GROUPS))
    dynamic = DynamicEdgeConv(C_IN, channels, K, norm, groups=GROUPS).double()
    static = EdgeConv(C_IN, channels, norm, groups=GROUPS).double()
    x, batch = points((11, 11, 11))
    for module in (dynamic, static):
        module.load_state_dict(dense.state_dict())
    images = x.view(3, 11, C_IN).transpose(1, 2)
    out = step(dense, images)
    expected = [part.transpose(1, 2).flatten(0, 1) for part in out[:2]] + out[2:]
    assert_same(step(dynamic, x, batch), expected)
    assert_same(step(static, x, knn_edges(x, batch), batch), expected)


@pytest.mark.parametrize("norm", ["ws_gn", "gn", None])
@pytest.mark.parametrize("aggr", ["max", "mean"])
@pytest.mark.parametrize("channels", [8, WIDTHS])
def test_ragged_clouds_equal_clouds_one_by_one(norm: str | None, channels: int | tuple[int, ...], aggr: str) -> None:
    module = ready(DynamicEdgeConv(C_IN, channels, K, norm, groups=GROUPS, aggr=aggr))
    dense = DenseEdgeConv(C_IN, channels, K, norm, groups=GROUPS, aggr=aggr).double()
    dense.load_state_dict(module.state_dict())
    x, batch = points()
    x.requires_grad_()
    found = module(x, batch)
    expected = torch.cat([dense(cloud.T.unsqueeze(0))[0].T for cloud in x.split(SIZES)])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found, torch.cat([module(cloud) for cloud in x.split(SIZES)]))
    assert_same(
        list(torch.autograd.grad(found.square().sum(), [x, *module.parameters()])),
        list(torch.autograd.grad(expected.square().sum(), [x, *dense.parameters()])),
    )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("aggr", ["max", "mean"])
@pytest.mark.parametrize("norm", [*NORMS, None])
def test_backends_agree_on_ragged_clouds(norm: str | None, aggr: str, training: bool) -> None:
    fused, reference = (
        ready(DynamicEdgeConv(C_IN, WIDTHS, 8, norm, backend, groups=GROUPS, aggr=aggr)).train(training)
        for backend in ("fused", "reference")
    )
    x, batch = points()  # one cloud has fewer than 8 points
    assert_same(step(fused, x, batch), step(reference, x, batch))
    static = ready(EdgeConv(C_IN, WIDTHS, norm, "fused", groups=GROUPS, aggr=aggr)).train(training)
    static_reference = ready(EdgeConv(C_IN, WIDTHS, norm, "reference", groups=GROUPS, aggr=aggr)).train(training)
    edges = knn_edges(x, batch)
    assert_same(step(static, x, edges, batch), step(static_reference, x, edges, batch))


def test_batch_norm_is_over_all_edges_of_the_batch() -> None:
    module, (x, batch) = ready(EdgeConv(C_IN, 8, "bn")), points()
    edge_index = knn_edges(x, batch)
    sources, targets = edge_index
    edges = torch.cat([x[sources] - x[targets], x[targets]], dim=1) @ module.conv.weight.flatten(1).T
    norm = nn.BatchNorm1d(8).double()
    norm.load_state_dict(module.norm.state_dict())
    normed = norm(edges)
    expected = torch.stack([F.leaky_relu(normed[targets == i], 0.2).amax(0) for i in range(len(x))])
    torch.testing.assert_close(module(x, edge_index, batch), expected)
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(module.norm.state_dict()[name], value)


@pytest.mark.parametrize("norm", ["ws_gn", "ws_bcn"])
def test_irregular_graphs_have_statistics_of_each_clouds_own_edges(norm: str) -> None:
    module, (x, batch) = ready(EdgeConv(C_IN, WIDTHS, norm, groups=GROUPS)).eval(), points()
    distances = torch.cdist(x, x).masked_fill(batch[:, None] != batch, float("inf"))
    edge_index = (distances < 1.5).nonzero().T  # a radius graph: from few neighbours to many
    expected, start = [], 0
    for cloud, size in enumerate(SIZES):
        inside = batch[edge_index[1]] == cloud
        expected.append(module(x[start : start + size], edge_index[:, inside] - start))
        start += size
    torch.testing.assert_close(module(x, edge_index, batch), torch.cat(expected))


def test_dynamic_bipartite_takes_each_targets_nearest_sources() -> None:
    (x, x_batch), (y, y_batch) = points(), points((5, 3, 8, 2, 4))
    module = ready(DynamicEdgeConv(C_IN, WIDTHS, K, "ws_gn", groups=GROUPS))
    static = ready(EdgeConv(C_IN, WIDTHS, "ws_gn", groups=GROUPS))
    distances = torch.cdist(y, x).masked_fill(y_batch[:, None] != x_batch, float("inf"))
    edge_index = torch.stack([distances.argsort(1)[:, :K].flatten(), torch.arange(len(y)).repeat_interleave(K)])
    torch.testing.assert_close(module((x, y), (x_batch, y_batch)), static((x, y), edge_index, y_batch))
    torch.testing.assert_close(module((x, x), (x_batch, x_batch)), module(x, x_batch))
    assert module((x, y)).shape == (len(y), 12)


def test_clouds_named_for_one_side_only() -> None:
    """Without the other side's clouds, edges would run from one cloud into the next."""
    (x, x_batch), (y, y_batch) = points(), points((5, 3, 8, 2, 4))
    module = ready(DynamicEdgeConv(C_IN, WIDTHS, K, "ws_gn", groups=GROUPS))
    for pair, batch in (
        ((x, y), (x_batch, None)),
        ((x, y), (None, y_batch)),
        (x, (x_batch, None)),
        (x, (None, x_batch)),
    ):
        with pytest.raises(InputError, match="alone: give it for sources and targets, or neither"):
            module(pair, batch)
    one = torch.full((len(x),), 7)  # a single cloud has one meaning, named or not
    torch.testing.assert_close(module((x, y), (one, None)), module((x, y)))
    torch.testing.assert_close(module(x, (x_batch, x_batch.clone())), module(x, x_batch))


@pytest.mark.parametrize("norm", ["ws_gn", None])
def test_no_edges_and_no_points(norm: str | None) -> None:
    static, dynamic = EdgeConv(C_IN, WIDTHS, norm), DynamicEdgeConv(C_IN, WIDTHS, K, norm)
    x = torch.randn(6, C_IN)
    assert (static(x, torch.empty(2, 0, dtype=torch.long)) == 0).all()
    for batch in ((), (torch.empty(0, dtype=torch.long),)):
        assert static(x[:0], torch.empty(2, 0, dtype=torch.long), *batch).shape == (0, 12)
    assert dynamic(x[:0], torch.empty(0, dtype=torch.long)).shape == (0, 12)
    assert (dynamic((x[:0], x)) == 0).all(), "targets without a source"
    assert dynamic(x[:1]).shape == (1, 12), "a cloud of one point is its own neighbour"


@pytest.mark.parametrize("level", [-1.0, 0.0, 1.0])
def test_equal_messages_share_a_points_whole_gradient(level: float) -> None:
    """Also where they are 0, as those of a block whose last norm begins with factors of 0."""
    x, _ = points()
    edges = any_edges(x)
    linear = nn.Linear(2 * C_IN, 2).double()
    block = EdgeConv(nn=linear, aggr="max")  # draws the weights anew
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.fill_(level)
    out = block(x, edges)
    reached = edges[1].unique()
    assert (out[reached] == level).all() and out.count_nonzero() in (0, 2 * len(reached))
    out.sum().backward()
    torch.testing.assert_close(linear.bias.grad, torch.full((2,), float(len(reached)), dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("aggr", ["mean", "add", "max"])
def test_half_precision_counts_and_adds_up_more_edges_than_it_can_count(aggr: str, dtype: torch.dtype) -> None:
    """Of 4,096 edges to one point: ones added up in bfloat16 stay at 256, in float16 at 2,048."""
    count = 4096
    x = torch.rand(count + 1, C_IN, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    edges = torch.stack([torch.arange(count), torch.full((count,), count)])
    module = EdgeConv(C_IN, 8, None, aggr=aggr).double()
    expected = module(x, edges)[count] if aggr != "add" else module(x, edges)[count] / count
    scaled = x / count if aggr == "add" else x  # or float16 overflows
    found = module.to(dtype)(scaled.to(dtype), edges)[count]
    assert found.dtype == dtype and (found.double() - expected).norm() < 0.03 * expected.norm()


def test_messages_may_be_whole_numbers() -> None:
    x, edges = torch.tensor([[1.0], [-2.0], [3.0]]), torch.tensor([[0, 1, 2], [0, 0, 1]])
    found = EdgeConv(lambda z: z.long())(x, edges)
    assert torch.equal(found, torch.tensor([[1, 0], [-2, 5], [0, 0]]))
    assert EdgeConv(lambda z: z > 0)(x, edges).dtype == torch.bool


def test_other_activations_run_on_edges() -> None:
    x, batch = points()
    module = ready(DynamicEdgeConv(C_IN, 8, K, act=nn.GELU(), groups=GROUPS))
    dense = ready(DenseEdgeConv(C_IN, 8, K, act=nn.GELU(), groups=GROUPS))
    torch.testing.assert_close(module(x, batch)[:9], dense(x[:9].T.unsqueeze(0))[0].T)


def test_reset_parameters_starts_anew() -> None:
    module, (x, batch) = DynamicEdgeConv(C_IN, WIDTHS, K, "ws_bcn"), points(dtype=torch.float32)
    fresh = {name: value.clone() for name, value in module.state_dict().items()}
    module(x, batch).sum().backward()
    torch.optim.SGD(module.parameters(), 0.1).step()
    module.reset_parameters()
    for name, value in module.state_dict().items():
        if "conv" in name:
            assert not torch.equal(value, fresh[name]) and value.std() < 1
        else:
            assert torch.equal(value, fresh[name]), name


def test_in_torch_geometrics_sequential() -> None:
    data = Batch.from_data_list([Data(x=cloud, edge_index=any_edges(cloud, 40)) for cloud in points()[0].split(SIZES)])
    model = Sequential(
        "x, edge_index, batch",
        [
            (EdgeConv(C_IN, 8), "x, edge_index, batch -> x"),
            (DynamicEdgeConv(8, 12, K), "x, batch -> x"),
            (global_max_pool, "x, batch -> x"),
            nn.Linear(12, 3),
        ],
    ).double()
    assert model(data.x, data.edge_index, data.batch).shape == (len(SIZES), 3)
    whole = Sequential(
        "data",
        [
            (lambda data: (data.x, data.batch), "data -> x, batch"),
            (DynamicEdgeConv(C_IN, 8, K), "x, batch -> x"),
        ],
    ).double()
    assert whole(data).shape == (len(data.x), 8)


class Classifier(nn.Module):
    """A worked example: DGCNN on torch_geometric batches of clouds of any size."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = DynamicEdgeConv(3, 16, k=6, groups=4)  # a channel alone in its group would lose its spread
        self.conv2 = DynamicEdgeConv(16, [16, 32], k=6, groups=4)
        self.classifier = nn.Linear(16 + 32, num_classes)

    def forward(self, data: Data) -> Tensor:
        x1 = self.conv1(data.pos, data.batch)
        x2 = self.conv2(x1, data.batch)
        return self.classifier(global_max_pool(torch.cat([x1, x2], dim=1), data.batch))


def ragged_clouds(count: int, generator: torch.Generator) -> Batch:
    """Return balls, poles and sheets of 12 to 60 points."""
    stretch = torch.tensor([[1, 1, 1], [0.05, 1, 0.05], [1, 0.05, 1]])
    clouds = []
    for label in torch.randint(0, 3, (count,), generator=generator):
        size = int(torch.randint(12, 61, (), generator=generator))
        pos = torch.randn(size, 3, generator=generator) * stretch[label]
        clouds.append(Data(pos=pos / pos.norm(dim=1).max(), y=label))
    return Batch.from_data_list(clouds)


def test_a_classifier_learns_ragged_clouds() -> None:
    generator, model = torch.Generator().manual_seed(0), Classifier(3)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(25):
        batch = ragged_clouds(16, generator)
        F.cross_entropy(model(batch), batch.y).backward()
        optimizer.step()
        optimizer.zero_grad()
    test = ragged_clouds(60, generator)
    assert (model.eval()(test).argmax(1) == test.y).float().mean() > 0.9


def test_wrong_input_is_refused() -> None:
    module, dynamic, (x, batch) = EdgeConv(C_IN, 8).double(), DynamicEdgeConv(C_IN, 8, K).double(), points()
    edge_index = knn_edges(x, batch)
    for wrong, message in (
        (edge_index.T, r"dense \(2, E\)"),
        (edge_index.double(), "torch.float64; point numbers"),
        (edge_index + 9, f"has {len(x) + 8} among its sources; points are numbered 0 to {len(x) - 1}"),
        (edge_index - 1, "has -1 among its sources"),
    ):
        with pytest.raises(InputError, match=message):
            module(x, wrong, batch)
    with pytest.raises(InputError, match=r"x is \(points, 3\), floating"):
        dynamic(x[:, :2], batch)
    with pytest.raises(InputError, match=r"x is torch.float32 and the weights are torch.float64; convert one"):
        dynamic(x.float(), batch)
    with pytest.raises(InputError, match=r"79 points it cannot be torch.int64 of shape \(78,\)"):
        dynamic(x, batch[1:])
    with pytest.raises(InputError, match="'fused' needs equally many neighbours"):
        EdgeConv(C_IN, 8, backend="fused").double()(x, any_edges(x))
    with pytest.raises(InputError, match="k=0"):
        DynamicEdgeConv(C_IN, 8, 0).double()(x, batch)


def test_kernels_of_plain_torch() -> None:
    x, batch = points()
    module = ready(DynamicEdgeConv(C_IN, WIDTHS, K, groups=GROUPS))
    expected = step(module, x, batch)
    module.zero_grad()
    with ops.kernels("torch"):
        assert_same(step(module, x, batch), expected)
