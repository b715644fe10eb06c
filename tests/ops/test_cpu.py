"""The Numba kernels against the reference: values, gradients, precision, threads, and hostile input."""

import os
import subprocess
import sys
import threading

import numba.core.caching
import pytest
import torch
from torch import Tensor

from dgcnn_ws.ops import cpu, loops, reference

SHAPES = [  # B, N, k, C
    (1, 1, 1, 1),
    (1, 5, 5, 3),
    (3, 40, 7, 19),
    (2, 33, 1, 64),
    (1, 300, 20, 130),
    (16, 10, 4, 5),
    (0, 8, 3, 4),
]
shapes = pytest.mark.parametrize(("batch", "num_points", "k", "channels"), SHAPES)
precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["float64", "float32"]
)


def random(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=dtype)


def graph(batch: int, num_points: int, k: int) -> Tensor:
    generator = torch.Generator().manual_seed(k)
    return torch.rand(batch, num_points, num_points, generator=generator).argsort(-1)[..., :k]


def agree(actual, expected, tolerance: float) -> None:
    """Equal to a tolerance relative to the largest entry: sums of many terms cancel entry by entry."""
    actual, expected = ((t,) if isinstance(t, Tensor) else t for t in (actual, expected))
    for one, other in zip(actual, expected, strict=True):
        scale = float(other.abs().max()) if other.numel() and other.is_floating_point() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(scale, 1e-3))


@shapes
@precisions
def test_edge_aggregate(batch, num_points, k, channels, dtype, tolerance):
    ab, idx = random(batch, num_points, 2 * channels, dtype=dtype), graph(batch, num_points, k)
    use_max = torch.arange(channels) % 3 > 0
    outputs = cpu.edge_aggregate(ab, idx, use_max)
    agree(outputs, reference.edge_aggregate(ab, idx, use_max), tolerance)
    extreme, arg, mean, _ = outputs
    g_extreme, g_mean, g_var = torch.randn_like(extreme), torch.randn_like(mean), torch.randn_like(mean)
    for gradients in ((g_extreme, g_mean, g_var), (g_extreme, None, None), (None, g_mean, None)):
        inputs = (ab, idx, arg, mean, *gradients)
        agree(cpu.edge_aggregate_backward(*inputs), reference.edge_aggregate_backward(*inputs), tolerance)


@shapes
@precisions
def test_column_moments(batch, num_points, k, channels, dtype, tolerance):
    y, use_max = random(batch, num_points, channels, dtype=dtype), torch.arange(channels) % 3 > 0
    outputs = cpu.column_moments(y, use_max)
    agree(outputs, reference.column_moments(y, use_max), tolerance)
    extreme, arg, mean, _ = outputs
    gradients = torch.randn_like(extreme), torch.randn_like(mean), torch.randn_like(mean)
    for inputs in ((y, arg, mean, *gradients), (y, arg, mean, gradients[0], None, None)):
        agree(cpu.column_moments_backward(*inputs), reference.column_moments_backward(*inputs), tolerance)


@shapes
@precisions
def test_activations(batch, num_points, k, channels, dtype, tolerance):
    x = random(batch, num_points, channels, dtype=dtype)
    inputs = x, random(batch, channels, dtype=dtype), random(channels, dtype=dtype).expand(batch, -1), 0.2
    for name, g_out in (("scale_shift_act", torch.randn_like(x)), ("mean_act", torch.randn_like(inputs[1]))):
        agree(getattr(cpu, name)(*inputs), getattr(reference, name)(*inputs), tolerance)
        backward = f"{name}_backward"
        agree(getattr(cpu, backward)(g_out, *inputs), getattr(reference, backward)(g_out, *inputs), tolerance)


@pytest.mark.parametrize(
    ("num_points", "k"),
    [(1, 1), (7, 7), (100, 20), (200, 20), (1024, 20), (1000, 40), (999, 110), (500, 499)],
)
@pytest.mark.parametrize("channels", [1, 3, 20])
@precisions
def test_knn_finds_the_smallest_distances(num_points, k, channels, dtype, tolerance):
    x = random(2, num_points, channels, dtype=dtype)
    idx = cpu.knn(x, k)
    distances = torch.cdist(x.double(), x.double()).square()
    found = distances.gather(2, idx).sort(-1).values
    torch.testing.assert_close(found, distances.sort(-1).values[..., :k], rtol=0, atol=100 * tolerance)
    assert all(len(set(row)) == k for row in idx.flatten(0, 1).tolist())


@pytest.mark.parametrize("channels", [3, 20])
def test_knn_far_from_the_origin_is_knn_at_the_origin(channels):
    x = torch.randint(-512, 512, (1, 200, channels), generator=torch.Generator().manual_seed(0)).float() / 512
    near, far = cpu.knn(x, 8), cpu.knn(x + 1024, 8)  # the shift is exact
    distances = torch.cdist(x, x)
    torch.testing.assert_close(distances.gather(2, near).sort().values, distances.gather(2, far).sort().values)


@pytest.mark.parametrize("channels", [3, 20])
def test_knn_of_equal_points_is_distinct(channels):
    idx = cpu.knn(torch.ones(1, 3000, channels), 20)
    assert idx.sort(-1).values.diff(dim=-1).min() > 0
    assert 0 <= idx.min() <= idx.max() < 3000


def test_rounded_products_allowed_elsewhere_do_not_reach_knn():
    x = random(1, 200, 32, dtype=torch.float32)
    expected = cpu.knn(x, 5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(cpu.knn(x, 5), expected)
    finally:
        torch.set_float32_matmul_precision(before)


def test_moments_survive_a_large_common_offset():
    generator = torch.Generator().manual_seed(0)
    ab = 1000 + torch.randn(1, 500, 16, generator=generator)
    idx, use_max = graph(1, 500, 10), torch.ones(8, dtype=torch.bool)
    actual = cpu.edge_aggregate(ab, idx, use_max)
    expected = reference.edge_aggregate(ab.double(), idx, use_max)
    torch.testing.assert_close(actual[2].double(), expected[2], rtol=1e-6, atol=0)
    torch.testing.assert_close(actual[3].double(), expected[3], rtol=1e-4, atol=0)
    y = ab[..., :8]
    torch.testing.assert_close(
        cpu.column_moments(y, use_max)[3].double(), y.double().var(1, correction=0), rtol=1e-5, atol=0
    )


def test_anticorrelated_terms_do_not_cancel():
    a = torch.randn(1, 400, 4, generator=torch.Generator().manual_seed(0))
    ab = torch.cat([a, 0.01 * a.flip(-1) - a], dim=-1)
    idx = torch.arange(400).view(1, -1, 1)  # its own neighbour alone: y = 0.01 a
    var = cpu.edge_aggregate(ab, idx, torch.ones(4, dtype=torch.bool))[3]
    torch.testing.assert_close(var.double(), (0.01 * a.double().flip(-1)).var(1, correction=0), rtol=1e-4, atol=0)


def test_results_do_not_depend_on_the_number_of_threads():
    ab, idx = random(1, 256, 128, dtype=torch.float32), graph(1, 256, 20)
    use_max, threads = torch.ones(64, dtype=torch.bool), torch.get_num_threads()

    def everything() -> list[Tensor]:
        extreme, arg, mean, var = cpu.edge_aggregate(ab, idx, use_max)
        g_ab = cpu.edge_aggregate_backward(ab, idx, arg, mean, extreme, mean, var)
        scaled = cpu.scale_shift_act_backward(extreme, extreme, mean, var, 0.2)
        return [extreme, mean, var, g_ab, *scaled, *cpu.column_moments(extreme, use_max)]

    try:
        results = []
        for count in (1, 2, 3, 8):
            torch.set_num_threads(count)
            results.append(everything())
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


def test_several_python_threads_at_once():
    ab, idx = random(1, 256, 64, dtype=torch.float32), graph(1, 256, 20)
    use_max, results = torch.ones(32, dtype=torch.bool), []
    expected = cpu.edge_aggregate(ab, idx, use_max)

    def work() -> None:
        for _ in range(20):
            results.append(cpu.edge_aggregate(ab, idx, use_max))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(results) == 80
    for result in results:
        torch.testing.assert_close(result, expected, rtol=0, atol=0)


def in_a_new_process(code: str, **environment: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_computes():
    in_a_new_process("""
import os, torch
from dgcnn_ws.ops import cpu
torch.set_num_threads(2)
x, scale = torch.randn(1, 512, 64), torch.ones(1, 64)
expected = cpu.scale_shift_act(x, scale, scale, 0.2)
assert cpu._pool is not None
child = os.fork()
if child == 0:
    same = torch.equal(cpu.scale_shift_act(x, scale, scale, 0.2), expected)
    os._exit(0 if same else 1)
assert os.waitpid(child, 0)[1] == 0
""")


def test_hostile_input_stays_within_bounds(request):
    in_a_new_process(
        """
import itertools, torch
from dgcnn_ws.ops import cpu
nan, inf = float("nan"), float("inf")
half, single = torch.bfloat16, torch.float32
for num_points, value, dtype in itertools.product((1, 30, 200), (nan, inf, 1e30, 1e-39), (single, half)):
    for k in {1, min(20, num_points), num_points}:
        for x in (torch.full((1, num_points, 3), value), torch.randn(1, num_points, 3)):
            x[0, 0] = value
            x = x.to(dtype)
            cpu.knn(x.repeat(1, 1, 7), k)
            idx = cpu.knn(x, k)
            assert idx.min() >= 0 and idx.max() < num_points
            assert k == 1 or idx.sort(-1).values.diff(dim=-1).min() > 0
            ab, use_max = x.repeat(1, 1, 2), torch.tensor([True, False, True])
            extreme, arg, mean, var = cpu.edge_aggregate(ab, idx, use_max)
            assert int(arg.max()) < k
            cpu.edge_aggregate_backward(ab, idx, arg, mean, extreme, mean, var)
            extreme, arg, mean, var = cpu.column_moments(x, use_max)
            assert 0 <= int(arg.min()) and int(arg.max()) < num_points
            cpu.column_moments_backward(x, arg, mean, extreme, mean, var)
            cpu.mean_act_parts(x, mean, var, 0.2)
            cpu.scale_shift_act_backward(x, x, mean, var, 0.2)
            cpu.mean_act_backward(mean, x, mean, var, 0.2)

import numba, numpy as np
from dgcnn_ws.ops.loops.vectors import LANES, load, store
@numba.njit
def copy(values, i, j):
    store(values, np.uint64(i), load(values, np.uint64(j)))
values = np.zeros(2 * LANES, np.float32)
copy(values, 0, LANES)
for i, j in ((LANES + 1, 0), (0, LANES + 1)):
    try:
        copy(values, i, j)
    except IndexError:
        continue
    raise AssertionError("vectors are not checked")
""",
        NUMBA_BOUNDSCHECK="1",
        NUMBA_CACHE_DIR=str(request.config.cache.mkdir("numba-boundscheck")),
    )


def test_bfloat16_neighbours_are_the_same_without_instructions_for_bfloat16(request):
    in_a_new_process(
        """
import torch
from dgcnn_ws.ops import cpu
for num_points, channels, k in ((1, 17, 1), (70, 33, 70), (300, 64, 20), (129, 20, 43)):
    x = torch.randn(2, num_points, channels).bfloat16()
    distances = torch.cdist(x.double(), x.double()).square()
    found = distances.gather(2, cpu.knn(x, k)).sort(-1).values
    torch.testing.assert_close(found, distances.sort(-1).values[..., :k], rtol=1e-5, atol=1e-4)
""",
        NUMBA_CPU_NAME="generic",
        NUMBA_CPU_FEATURES="",
        NUMBA_CACHE_DIR=str(request.config.cache.mkdir("numba-generic")),
    )


def test_loops_run_where_no_folder_can_be_written(monkeypatch):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    assert loops.compiled(lambda x: x + 1)(1) == 2
