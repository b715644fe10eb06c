"""torch_geometric's own arguments, EdgeConv(nn) and DynamicEdgeConv(nn, k): against torch_geometric's own layer."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import MLP
from torch_geometric.nn import EdgeConv as GeometricEdgeConv
from torch_geometric.nn import Linear as GeometricLinear

from dgcnn_ws import WSLinear, ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.edge_mlp import NotLayers, read_layers
from dgcnn_ws.nn.pyg import DynamicEdgeConv, EdgeConv

SIZES, K = (9, 30, 5, 12, 12), 4
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP([6, 8, 12, 10]),
    "mlp of one layer": lambda: MLP([6, 8]),
    "mlp with all norms": lambda: MLP([6, 8, 12], plain_last=False, act="leaky_relu", bias=[True, False]),
    "mlp without norms": lambda: MLP([6, 8, 12], norm=None, plain_last=False),
    "sequential": lambda: nn.Sequential(
        *(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.LeakyReLU(0.2)),
        nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.LeakyReLU(0.2)),
    ),
    "no activation last": lambda: nn.Sequential(GeometricLinear(6, 8), nn.ReLU(), nn.Linear(8, 12), nn.BatchNorm1d(12)),
    "standardized": lambda: nn.Sequential(WSLinear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.0)),
}
ON_EDGES: dict[str, Callable[[], nn.Module]] = {
    "norm of each edge": lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU()),
    "activation first": lambda: MLP([6, 8, 12], act_first=True),
    "another activation": lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU()),
    "activations that differ": lambda: nn.Sequential(
        *(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8))
    ),
    "no affine": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8, affine=False)),
    "norm first": lambda: nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 8)),
}


def points(sizes: tuple[int, ...] = SIZES) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    batch = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64), batch


def knn_edges(x: Tensor, batch: Tensor, k: int = K) -> Tensor:
    """Return the edges from each point's k nearest in its cloud, or from all of a smaller one."""
    distances = torch.cdist(x, x).masked_fill(batch[:, None] != batch, float("inf"))
    nearest = distances.sort(1)
    reached, kept = torch.arange(len(x)).repeat_interleave(k), nearest.values[:, :k].flatten().isfinite()
    return torch.stack([nearest.indices[:, :k].flatten(), reached])[:, kept]


def twins(network: nn.Module, aggr: str, k: int | None = None, backend: str = "auto") -> tuple[nn.Module, nn.Module]:
    """Return torch_geometric's layer and ours on equal weights, norms with statistics and signs of their own."""
    theirs = GeometricEdgeConv(network.double(), aggr=aggr)
    for name, tensor in [*theirs.named_parameters(), *theirs.named_buffers()]:
        if tensor.is_floating_point():
            tensor.data.normal_(generator=torch.Generator().manual_seed(sum(map(ord, name))))
            if name.endswith("running_var"):
                tensor.data.abs_().add_(0.5)
    own = copy.deepcopy(network)
    ours = EdgeConv(own, aggr, backend=backend) if k is None else DynamicEdgeConv(own, k, aggr, backend=backend)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def step(module: nn.Module, x: Tensor, *graph: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    out = module(x, *graph)
    out.square().sum().backward()
    assert x.grad is not None
    return [out.detach(), x.grad, *(p.grad for p in module.parameters()), *module.buffers()]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("aggr", ["max", "mean", "add"])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_torch_geometric(name: str, aggr: str, training: bool) -> None:
    theirs, ours = (layer.train(training) for layer in twins(NETWORKS[name](), aggr, backend="fused"))
    x, batch = points((12, 9, 20))
    edge_index = knn_edges(x, batch)
    edge_index = edge_index[:, torch.randperm(edge_index.shape[1])]
    assert_same(step(ours, x, edge_index), step(theirs, x, edge_index))
    theirs, ours = (layer.train(training) for layer in twins(NETWORKS[name](), aggr, K))
    x, batch = points()
    assert_same(step(ours, x, batch), step(theirs, x, knn_edges(x, batch)))


@pytest.mark.parametrize("aggr", ["max", "mean", "add"])
def test_a_cloud_smaller_than_k_an_irregular_graph_and_two_kinds_of_points(aggr: str) -> None:
    theirs, ours = twins(NETWORKS["mlp"](), aggr, 7)
    x, batch = points()
    assert_same(step(ours, x, batch), step(theirs, x, knn_edges(x, batch, 7)))
    theirs, ours = twins(NETWORKS["mlp"](), aggr)
    edge_index = (torch.cdist(x, x) < 0.8).nonzero().T
    edge_index = edge_index[:, edge_index[1] > 3]  # some points isolated
    assert_same(step(ours, x, edge_index), step(theirs, x, edge_index))
    for kind in (torch.int32, torch.int64):
        assert_same([ours((x, x[:20]), (edge_index % 20).to(kind))], [theirs((x, x[:20]), edge_index % 20)])


@pytest.mark.parametrize("name", ON_EDGES)
def test_what_cannot_be_taken_over_runs_edge_by_edge(name: str) -> None:
    with pytest.raises(InputError, match=r"backend 'fused' cannot take nn over: .*\. Use backend 'auto'\."):
        EdgeConv(ON_EDGES[name](), backend="fused")
    theirs, ours = twins(ON_EDGES[name](), "max", K)
    x, batch = points()
    assert_same(step(ours, x, batch), step(theirs, x, knn_edges(x, batch)))


def test_what_changes_a_network_is_noticed() -> None:
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8))
    with pytest.raises(NotLayers, match="Dropout"):
        read_layers(network, "max")
    assert len(read_layers(network.eval(), "max").layers) == 2
    network[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    with pytest.raises(NotLayers, match="hooks"):
        read_layers(network, "max")
    with pytest.raises(NotLayers, match="no torch module"):
        read_layers(torch.relu, "max")
    lazy = DynamicEdgeConv(nn.Sequential(GeometricLinear(-1, 8), nn.ReLU()), K).double()
    x, batch = points()
    assert_same([lazy(x, batch)], [lazy(x, batch)])  # edge by edge, and then without edges
    assert_same([DynamicEdgeConv(lambda edges: edges[:, :2].exp(), K)(x, batch)], [x[:, :2].exp()])


def test_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(0)
    theirs = GeometricEdgeConv(MLP([6, 8, 12]))
    torch.manual_seed(0)
    ours = DynamicEdgeConv(nn=MLP([6, 8, 12]), k=5)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(
    "layer", [lambda: DynamicEdgeConv(3, [8, 8], K, groups=4), lambda: DynamicEdgeConv(MLP([6, 8, 8]), K)]
)
def test_batches_in_any_order(layer: Callable[[], nn.Module]) -> None:
    module, (x, batch) = layer().double(), points()
    mixed = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    expected = module(x, batch)
    torch.testing.assert_close(module(x[mixed], batch[mixed]), expected[mixed])
    torch.testing.assert_close(
        module(x[mixed], (3 * batch[mixed] + 1).int()), expected[mixed], msg="empty clouds, int32"
    )
    torch.testing.assert_close(module((x[mixed], x), (batch[mixed], batch)), expected)
    torch.testing.assert_close(module((x, x[mixed]), (batch, batch[mixed])), expected[mixed])
    graph, edges = EdgeConv(3, [8, 8], groups=4).double(), knn_edges(x, batch)
    graph(x, edges, batch)
    places = torch.empty_like(mixed).scatter_(0, mixed, torch.arange(len(mixed)))
    for part in (edges, edges[:, ::2]):  # regular, and not
        torch.testing.assert_close(graph(x[mixed], places[part], batch[mixed]), graph(x, part, batch)[mixed])


@pytest.mark.parametrize("aggr", ["max", "mean", "add"])
def test_dense_blocks_add_too(aggr: str) -> None:
    from dgcnn_ws import EdgeConv as Dense

    x, (_, batch) = points((10, 10)), points((10, 10))
    dense = Dense(3, [8, 8], K, aggr=aggr, groups=4).double()
    literal = Dense(3, [8, 8], K, aggr=aggr, groups=4, backend="reference").double()
    ragged = DynamicEdgeConv(3, [8, 8], K, aggr=aggr, groups=4).double()
    literal.load_state_dict(dense.state_dict())
    ragged.load_state_dict(dense.state_dict())
    clouds = x[0].view(2, 10, 3).transpose(1, 2)
    torch.testing.assert_close(dense(clouds), literal(clouds))
    torch.testing.assert_close(ragged(x[0], batch), literal(clouds).transpose(1, 2).flatten(0, 1))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda: EdgeConv(MLP([6, 8]), aggr="std"), "aggr 'std' is unknown"),
        (lambda: EdgeConv(MLP([6, 8]), flow="target_to_source"), "flow='target_to_source' is not known here"),
        (lambda: EdgeConv(MLP([6, 8]), backend="fast"), "backend 'fast' is unknown"),
    ],
)
def test_wrong_words(wrong: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        wrong()


CASES: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "EdgeConv(channels)": (lambda: EdgeConv(3, [8, 8], groups=4), True),
    "DynamicEdgeConv(ws_bcn)": (lambda: DynamicEdgeConv(3, [8, 8], K, "ws_bcn", groups=4), False),
    "DynamicEdgeConv(nn)": (lambda: DynamicEdgeConv(MLP([6, 8, 8]), K), False),
}


@pytest.mark.parametrize("name", CASES)
def test_compiled_and_exported(name: str) -> None:
    torch.compiler.reset()
    make, given = CASES[name]
    module, (x, batch) = make().double(), points()
    inputs = (x, knn_edges(x, batch), batch) if given else (x, batch)
    module(*inputs)  # estimates that are none of their initial values
    found = step(torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager"), *inputs)
    assert_same(found, step(module, *inputs))
    program = torch.export.export(module.eval(), inputs).module()
    torch.testing.assert_close(program(*inputs), module(*inputs))


def test_a_compiled_layer_says_what_it_needs() -> None:
    torch.compiler.reset()
    module, (x, batch) = DynamicEdgeConv(3, 8, 7, groups=4), points()  # one cloud of 5
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    with pytest.raises(InputError, match="needs k=7 points in every cloud"):
        compiled(x.float(), batch)
    with pytest.raises(RuntimeError, match="outside the clouds"):
        torch.compile(EdgeConv(3, 8), fullgraph=True, backend="aot_eager")(x.float(), torch.tensor([[0, 99], [1, 2]]))


def test_kernels_of_plain_torch() -> None:
    theirs, ours = twins(NETWORKS["mlp"](), "max", K)
    x, batch = points()
    with ops.kernels("torch"):
        assert_same(step(ours, x, batch), step(theirs, x, knn_edges(x, batch)))
