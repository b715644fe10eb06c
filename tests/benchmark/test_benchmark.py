"""The arithmetic against known counts, the compared layers against each other, memory against tensor sizes."""

import json
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dgcnn_ws import ops
from dgcnn_ws.benchmark import benchmark
from dgcnn_ws.benchmark.benchmark import Setting

MODES = ["train", "inference", "layers"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One step a turn however short, memory without a process of its own, and no threads to wait for."""
    monkeypatch.setattr(benchmark, "SHORTEST", 0)
    monkeypatch.setattr(benchmark, "peak_memory", lambda setting, implementation: 1000)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(mode: str = "train", norm: str = "ws_gn", batch_size: int = 2) -> Setting:
    return Setting(mode, norm, num_points=48, batch_size=batch_size, k=5, emb_dims=32)


def test_unavoidable_multiply_adds_of_dgcnn() -> None:
    forward = benchmark.multiply_adds("inference", 1024)
    assert {part: round(count / 1e6) for part, count in forward.items()} == {
        "distances": 272, "edge_convs": 93, "shared": 537, "head": 1,
    }  # fmt: skip
    assert sum(forward.values()) == pytest.approx(903e6, rel=1e-3)
    training = benchmark.multiply_adds("train", 1024)
    assert sum(training.values()) == pytest.approx(2163e6, rel=1e-3)
    assert training["distances"] == forward["distances"]  # has no backward pass
    assert benchmark.multiply_adds("layers", 1024) == {"edge_convs": training["edge_convs"]}


def test_multiply_adds_grow_with_points_and_channels() -> None:
    one, twice = (benchmark.multiply_adds("train", n) for n in (1024, 2048))
    assert {part: twice[part] / one[part] for part in one} == {
        "distances": 4, "edge_convs": 2, "shared": 2, "head": 1,
    }  # fmt: skip
    half = benchmark.multiply_adds("train", 1024, emb_dims=512)
    assert half["shared"] * 2 == one["shared"] and half["edge_convs"] == one["edge_convs"]


def test_edge_convs_multiply_adds_are_those_of_their_weights() -> None:
    layers = benchmark.edge_convs(small(), "fused")
    weights = sum(layer.conv.weight.numel() for layer in layers)
    assert benchmark.multiply_adds("inference", 100)["edge_convs"] == 100 * weights


def test_the_floor_is_the_best_products_in_each_round() -> None:
    setting = Setting("inference", "bn", 1024, batch_size=4, precision="bf16")
    product = 4 * 1024 * 512 * 1024
    times = {
        "float32 mm": [product * 2e-9, product * 4e-9],
        "float32 linear": [product * 3e-9, product * 3e-9],
        "bfloat16 mm": [product * 1e-9, product * 9e-9],
    }
    adds = benchmark.multiply_adds("inference", 1024)
    coordinates = 3 * 1024**2
    rest = sum(adds.values()) - coordinates
    # The points' own distances stay float32 where everything else may be bfloat16.
    expected = [coordinates * 2e-9 + rest * 1e-9, coordinates * 3e-9 + rest * 3e-9]
    assert benchmark.floor_seconds(setting, times) == pytest.approx(expected)


def run_layers(setting: Setting, implementation: str, points: Tensor, idx: Tensor) -> list[Tensor]:
    """Return the output (B, C, N) and the gradients of every weight, in our order of edge features."""
    layers = benchmark.edge_convs(setting, implementation).double()
    geometric = implementation == "torch_geometric"
    generator = torch.Generator().manual_seed(0)
    weights = []
    for layer in layers:
        conv = layer.nn[0] if geometric else layer.conv
        shape = conv.weight.flatten(1).shape
        U, V = torch.randn(shape, generator=generator, dtype=torch.float64).chunk(2, dim=1)
        conv.weight.data = torch.cat([V, U] if geometric else [U, V], dim=1).view_as(conv.weight)
        weights.append(conv.weight)
    x = points.transpose(1, 2).flatten(0, 1) if geometric else points
    for layer in layers:
        x = layer(x, benchmark.edge_index_of(idx) if geometric else idx)
    out = x.view(len(points), -1, x.shape[1]).transpose(1, 2) if geometric else x
    out.square().sum().backward()
    gradients = [weight.grad.flatten(1) for weight in weights if weight.grad is not None]
    if geometric:
        gradients = [torch.cat(g.chunk(2, dim=1)[::-1], dim=1) for g in gradients]
    return [out.detach(), *gradients]


@pytest.mark.parametrize("norm", ["ws_gn", "bn", "ws_bn"])
def test_every_implementation_computes_the_same_layers(norm: str) -> None:
    setting = small("layers", norm)
    points = torch.randn(2, 3, 48, dtype=torch.float64)
    idx = ops.knn(points.transpose(1, 2), 5)
    names = benchmark.IMPLEMENTATIONS["layers"]
    expected, *others = (run_layers(setting, name, points, idx) for name in names)
    for other in others:
        assert len(other) == 5
        for value, reference in zip(other, expected, strict=True):
            torch.testing.assert_close(value, reference, rtol=1e-6, atol=1e-6)


def test_edge_index_lists_every_edge_of_every_cloud() -> None:
    idx = torch.randint(0, 7, (3, 7, 4))
    edges = [[7 * b + int(idx[b, i, j]), 7 * b + i] for b in range(3) for i in range(7) for j in range(4)]
    assert benchmark.edge_index_of(idx).T.tolist() == edges


def test_steps_take_turns_until_patience_ends() -> None:
    calls: list[str] = []

    def step(name: str) -> benchmark.Step:
        def run(clouds: int) -> None:
            calls.append(name)
            time.sleep(0.11)  # long enough not to be repeated within a turn

        return run

    times = benchmark.time_rounds(small(), {"A": step("A"), "B": step("B")}, 3, patience=60)
    assert "".join(calls).endswith("ABABAB")
    assert {name: len(seconds) for name, seconds in times.items()} == {"A": 3, "B": 3}
    assert all(second >= 0.11 for seconds in times.values() for second in seconds)
    hurried = benchmark.time_rounds(small(), {"A": step("A")}, 9, patience=0)
    assert len(hurried["A"]) == 2
    assert len(benchmark.time_rounds(small(), {"A": step("A")}, 1, patience=0)["A"]) == 1


def test_peak_memory_holds_the_edge_tensors_of_the_reference_alone() -> None:
    # The widest layer's edges, before and after its product, must exist at the same time somewhere.
    setting = Setting("inference", "bn", num_points=512, batch_size=2, emb_dims=32)
    edges = 4 * 2 * 512 * 20 * (2 * 128 + 256)
    reference, fused = (benchmark.peak_memory(setting, name) for name in ("reference", "fused"))
    assert reference is not None and fused is not None
    assert 0 < fused < edges / 2 < edges < reference < 5 * edges
    assert reference / 3 < benchmark.edge_tensor_bytes(setting, "reference") < 2 * reference
    assert benchmark.edge_tensor_bytes(setting, "fused") == 0


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mode", MODES)
def test_what_would_not_fit_is_refused(mode: str) -> None:
    setting = small(mode)
    needed = benchmark.edge_tensor_bytes(setting, "reference")
    rows = benchmark.measure(setting, rounds=2, patience=0, max_memory_bytes=needed - 1)
    assert [row["implementation"] for row in rows if row["refusal"] is None] == ["fused"]
    assert rows[0]["refusal"] == f"needs about {needed / 1e9:.1f} GB"
    assert "speedup" not in rows[1]
    rows = benchmark.measure(setting, rounds=2, patience=0, max_memory_bytes=needed)
    assert all(row["refusal"] is None for row in rows)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("norm", "batch_size", "precision"), [("bn", 1, "32"), ("ws_gn", 2, "bf16")])
def test_rows_hold_consistent_figures(mode: str, norm: str, batch_size: int, precision: str) -> None:
    setting = Setting(mode, norm, 32, batch_size, k=5, emb_dims=32, precision=precision)
    rows = benchmark.measure(setting, rounds=3, patience=60, max_memory_bytes=1e9)
    assert tuple(row["implementation"] for row in rows) == benchmark.IMPLEMENTATIONS[mode]
    assert rows[0]["speedup"] == {"median": 1, "min": 1, "max": 1}
    for row in rows:
        assert row["rounds"] == 3
        assert row["memory_bytes_per_cloud"] == 1000 / batch_size
        for name in ("milliseconds_per_cloud", "floor_milliseconds_per_cloud", "times_floor", "speedup"):
            assert 0 < row[name]["min"] <= row[name]["median"] <= row[name]["max"]
        assert len(row["product_gflops"]) == (2 if precision == "32" else 4)
    assert rows == json.loads(json.dumps(rows))
    # The head's own batch norm cannot train on one cloud, and would stop the benchmark.
    assert rows[0]["head_norm"] == ("est" if mode == "train" and batch_size == 1 else None)


@pytest.mark.usefixtures("quick")
def test_out_of_memory_is_a_row_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "peak_memory", lambda setting, name: None if name == "reference" else 1)
    reference, fused = benchmark.measure(small(), rounds=1, patience=0, max_memory_bytes=1e9)
    assert reference["refusal"] == "out of memory" and fused["refusal"] is None


@pytest.mark.usefixtures("quick")
def test_profile_names_the_operators_of_a_step() -> None:
    rows = benchmark.profile_training_step(small("inference"), top=10_000)
    calls = {row["operator"]: row["calls"] for row in rows}
    assert calls["dgcnn_ws::knn"] == calls["dgcnn_ws::edge_aggregate_backward"] == 4  # one an EdgeConv
    taken = [row["milliseconds"] for row in rows]
    assert taken == sorted(taken, reverse=True)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert len(benchmark.profile_training_step(small())) == 15


def test_free_memory_is_that_of_this_machine() -> None:
    assert 1e6 < benchmark.free_memory_bytes(torch.device("cpu")) < 1e14
