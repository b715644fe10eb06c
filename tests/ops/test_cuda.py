"""The Triton kernels against the reference: on a CUDA device where there is one, else in Triton's interpreter.

The interpreter is chosen before triton is imported and holds for a whole process, so without a device one test
runs this file again in a process of its own.
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from dgcnn_ws.ops import reference
from scripts.checks.agreement import compare_operators

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_CUDA = torch.cuda.is_available() and not INTERPRETED
DEVICE = "cuda" if ON_CUDA else "cpu"
if INTERPRETED or ON_CUDA:
    from dgcnn_ws.ops import cuda

runs_kernels = pytest.mark.skipif(not (INTERPRETED or ON_CUDA), reason="runs in the interpreter's process")
needs_cuda = pytest.mark.skipif(not ON_CUDA, reason="needs a CUDA device")
SHAPES = [  # B, N, k, C
    (1, 1, 1, 1),
    (1, 6, 6, 3),
    (3, 13, 4, 19),
    (2, 11, 1, 66),
    (1, 50, 9, 8),
    (0, 8, 3, 4),
]
WIDE, HALF = [(torch.float64, 1e-10), (torch.float32, 1e-5)], [(torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
cases = pytest.mark.parametrize(
    ("batch", "num_points", "k", "channels", "dtype", "tolerance"),
    [(*shape, *precision) for shape in SHAPES for precision in WIDE]
    + [(3, 13, 4, 19, *precision) for precision in HALF],
)


@pytest.mark.skipif(INTERPRETED or ON_CUDA, reason="the tests below run here")
def test_kernels_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", __file__]
    result = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert result.returncode == 0 and " passed" in result.stdout, result.stdout + result.stderr


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def graph(batch: int, num_points: int, k: int) -> Tensor:
    generator = torch.Generator().manual_seed(k)
    return torch.rand(batch, num_points, num_points, generator=generator).argsort(-1)[..., :k].to(DEVICE)


def signs(channels: int) -> Tensor:
    return (torch.arange(channels) % 3 > 0).to(DEVICE)


def agree(actual, expected, tolerance: float) -> None:
    """Equal in type, and in value to a tolerance relative to the largest entry."""
    actual, expected = ((t,) if isinstance(t, Tensor) else t for t in (actual, expected))
    for one, other in zip(actual, expected, strict=True):
        scale = float(other.abs().max()) if other.numel() and other.is_floating_point() else 1.0
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(scale, 1e-3))


@runs_kernels
@cases
def test_edge_aggregate(batch, num_points, k, channels, dtype, tolerance):
    ab, idx = random(batch, num_points, 2 * channels, dtype=dtype), graph(batch, num_points, k)
    outputs = cuda.edge_aggregate(ab, idx, signs(channels))
    agree(outputs, reference.edge_aggregate(ab, idx, signs(channels)), tolerance)
    extreme, arg, mean, var = outputs
    chosen = 3 if dtype == torch.float32 else 1
    for gradients in ((extreme, var, mean), (extreme, None, None), (None, mean, None))[:chosen]:
        inputs = (ab, idx.int(), arg, mean, *gradients)
        agree(cuda.edge_aggregate_backward(*inputs), reference.edge_aggregate_backward(*inputs), tolerance)


@runs_kernels
@cases
def test_column_moments(batch, num_points, k, channels, dtype, tolerance):
    y = random(batch, num_points, 2 * channels, dtype=dtype)[..., ::2]  # not contiguous
    outputs = cuda.column_moments(y, signs(channels))
    agree(outputs, reference.column_moments(y, signs(channels)), tolerance)
    extreme, arg, mean, var = outputs
    for inputs in ((y, arg, mean, extreme, var, mean), (y, arg, mean, extreme, None, None)):
        agree(cuda.column_moments_backward(*inputs), reference.column_moments_backward(*inputs), tolerance)


@runs_kernels
@cases
def test_activations(batch, num_points, k, channels, dtype, tolerance):
    x, scale = random(batch, num_points, channels, dtype=dtype), random(batch, channels, dtype=dtype)
    inputs = x, scale, random(channels, dtype=dtype, seed=1).expand(batch, -1), 0.2
    for name, g_out in (("scale_shift_act", random(*x.shape, dtype=dtype, seed=2)), ("mean_act", scale)):
        agree(getattr(cuda, name)(*inputs), getattr(reference, name)(*inputs), tolerance)
        backward = f"{name}_backward"
        agree(getattr(cuda, backward)(g_out, *inputs), getattr(reference, backward)(g_out, *inputs), tolerance)


@runs_kernels
def test_moments_over_many_tiles(monkeypatch):
    for name, size in (("EDGE_TILE", 16), ("TILE", 16), ("BACKWARD_TILE", 8), ("COMBINED", 4)):
        monkeypatch.setattr(cuda, name, size)
    test_edge_aggregate(2, 9, 3, 5, torch.float32, 1e-5)
    test_column_moments(2, 9, 3, 5, torch.float64, 1e-10)
    test_activations(2, 9, 3, 5, torch.float32, 1e-5)


@runs_kernels
def test_moments_survive_a_large_common_offset():
    ab = 1000 + random(1, 60, 8, dtype=torch.float32)
    idx = graph(1, 60, 5)
    actual = cuda.edge_aggregate(ab, idx, signs(4))
    expected = reference.edge_aggregate(ab.double(), idx, signs(4))
    torch.testing.assert_close(actual[2].double(), expected[2], rtol=1e-6, atol=0)
    torch.testing.assert_close(actual[3].double(), expected[3], rtol=1e-4, atol=0)
    variance = cuda.column_moments(ab, signs(8))[3].double()
    torch.testing.assert_close(variance, ab.double().var(1, correction=0), rtol=1e-5, atol=0)


@runs_kernels
def test_first_of_equal_edges_wins_and_nan_is_seen():
    ab, idx = torch.ones(1, 8, 4, device=DEVICE), graph(1, 8, 3)
    assert not cuda.edge_aggregate(ab, idx, signs(2))[1].any()
    assert not cuda.column_moments(ab, signs(4))[1].any()
    ab[0, 5, 0] = float("nan")
    extreme, arg, mean, var = cuda.edge_aggregate(ab, idx, signs(2))
    expected = reference.edge_aggregate(ab, idx, signs(2))
    torch.testing.assert_close((extreme, mean, var), (expected[0], *expected[2:]), equal_nan=True)
    assert int(arg.max()) < 3
    actual, expected = (ops.column_moments(ab, signs(4)) for ops in (cuda, reference))
    torch.testing.assert_close(actual, expected, equal_nan=True)


@runs_kernels
@pytest.mark.parametrize(("num_points", "k"), [(1, 1), (7, 7), (30, 1), (30, 29), (45, 11)])
@pytest.mark.parametrize("channels", [3, 20])
def test_knn_finds_the_smallest_distances(num_points, k, channels):
    check_knn(random(2, num_points, channels, dtype=torch.float32), k)


@runs_kernels
def test_knn_in_other_precisions():
    check_knn(random(1, 30, 3, dtype=torch.float64), 5)
    check_knn(random(1, 30, 20, dtype=torch.bfloat16), 5)
    assert cuda.knn(random(0, 30, 3, dtype=torch.float32), 5).shape == (0, 30, 5)


@runs_kernels
@pytest.mark.parametrize("channels", [3, 20])
def test_knn_in_several_blocks(channels, monkeypatch):
    monkeypatch.setattr(cuda, "BLOCK_BYTES", 0)
    monkeypatch.setattr(cuda, "MAX_ROW", 16)
    check_knn(random(1, 40, channels, dtype=torch.float32), 9)


def check_knn(x: Tensor, k: int) -> None:
    idx = cuda.knn(x, k)
    distances = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = distances.gather(2, idx).sort(-1).values
    torch.testing.assert_close(found, distances.sort(-1).values[..., :k], rtol=1e-5, atol=1e-5)
    assert k == 1 or idx.sort(-1).values.diff(dim=-1).min() > 0


@runs_kernels
@pytest.mark.parametrize("channels", [3, 20])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, in the interpreter
def test_knn_of_equal_and_of_odd_points_is_distinct(channels):
    values = torch.tensor([0.0, float("nan"), float("inf"), -1e30], device=DEVICE).view(4, 1, 1)
    everywhere = values.expand(4, 30, channels)
    once = random(4, 30, channels, dtype=torch.float32)
    once[:, 3] = values[:, 0]
    idx = cuda.knn(torch.cat([everywhere, once]), 7)
    assert idx.sort(-1).values.diff(dim=-1).min() > 0
    assert int(idx.min()) >= 0 and int(idx.max()) < 30


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_agrees_with_float64_in_the_check_of_a_card(dtype):
    for comparison in compare_operators(cuda, torch.device(DEVICE), dtype, (2, 9, 3, 5)):
        assert comparison.agrees, comparison


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_compile_for_an_h100(dtype, monkeypatch):
    """As far as that goes without one: to machine code, for the types and sizes at which they would be launched."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime.driver import driver

    from dgcnn_ws.ops import cuda

    device = {"get_current_target": GPUTarget("cuda", 90, 32), "get_current_device": 0, "get_current_stream": 0}
    monkeypatch.setattr(driver, "_active", SimpleNamespace(**{n: lambda *_, v=v: v for n, v in device.items()}))
    compiled = {}

    def compile_only(kernel, grid, *args, **constants):
        compiled[kernel.__name__] = kernel.run(*args, grid=grid, warmup=True, **constants)

    monkeypatch.setattr(cuda, "_launch", compile_only)
    x = torch.zeros(2, 64, 32, dtype=dtype)
    if dtype == torch.float32:  # to which others are converted
        for points in (x, x[..., :3]):
            cuda.knn(points, 5)
    idx = torch.zeros(2, 64, 5, dtype=torch.int64)
    extreme, arg, mean, var = cuda.edge_aggregate(x, idx, torch.ones(16) > 0)
    cuda.edge_aggregate_backward(x, idx, arg, mean, extreme, mean, var)
    cuda.edge_aggregate_backward(x, idx, arg, mean, extreme, None, None)
    cuda.scale_shift_act(extreme, mean, var, 0.2)
    cuda.mean_act_backward(extreme[:, 0], extreme, mean, var, 0.2)
    cuda.mean_act(extreme, mean, var, 0.2)
    extreme, arg, mean, var = cuda.column_moments(x, torch.ones(32) > 0)
    cuda.column_moments_backward(x, arg, mean, extreme, mean, var)
    assert compiled.keys() >= {"edge_forward", "edge_backward", "affine_forward", "affine_backward", "combine_moments"}
    assert all(len(kernel.asm["cubin"]) > 1000 for kernel in compiled.values())
    assert all(kernel.metadata.shared <= 227 * 1024 for kernel in compiled.values())


@needs_cuda
def test_results_repeat_to_the_bit_also_in_a_cuda_graph():
    x, use_max = random(4, 1024, 64, dtype=torch.float32), signs(32)

    def everything() -> list[Tensor]:
        idx = cuda.knn(x, 20)
        extreme, arg, mean, var = cuda.edge_aggregate(x, idx, use_max)
        g_ab = cuda.edge_aggregate_backward(x, idx, arg, mean, extreme, mean, var)
        scaled = cuda.scale_shift_act_backward(extreme, extreme, mean, var, 0.2)
        return [idx, extreme, mean, var, g_ab, *scaled, *cuda.column_moments(extreme, use_max)]

    expected = everything()
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        results = everything()
    recorded.replay()
    torch.testing.assert_close(results, expected, rtol=0, atol=0, equal_nan=True)


@needs_cuda
@pytest.mark.parametrize(("num_points", "k"), [(1024, 20), (2048, 40), (5000, 40)])
@pytest.mark.parametrize("channels", [3, 64])
def test_knn_of_whole_clouds(num_points, k, channels):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        check_knn(random(2, num_points, channels, dtype=torch.float32), k)
    finally:
        torch.set_float32_matmul_precision(before)
