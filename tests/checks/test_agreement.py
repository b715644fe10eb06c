"""The comparisons with float64 see what is wrong, and nothing else."""

import types

import pytest
import torch
from torch import Tensor

from dgcnn_ws.nn import GlobalFeature
from dgcnn_ws.ops import cpu, reference
from scripts.checks.agreement import compare_modules, compare_operators, count_different_repeats, largest_difference

CPU = torch.device("cpu")


def broken(function: str, spoil: object) -> types.ModuleType:
    """Return the reference with one function whose first output is spoiled."""
    module = types.ModuleType("broken")
    vars(module).update(vars(reference))

    def wrong(*inputs: object) -> object:
        found = getattr(reference, function)(*inputs)
        first, *rest = (found,) if isinstance(found, Tensor) else found
        first = spoil(first)  # type: ignore[operator]
        return (first, *rest) if rest else first

    setattr(module, function, wrong)
    return module


def last_off(x: Tensor) -> Tensor:
    x = x.clone()
    x.flatten()[-1] += 0.1
    return x


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_right_kernels_agree(dtype: torch.dtype) -> None:
    names = set()
    for comparison in compare_operators(cpu, CPU, dtype, (2, 13, 4, 5)):
        assert comparison.agrees, comparison
        names.add(comparison.name.split()[0])
    operators = {"knn", "edge_aggregate", "column_moments", "scale_shift_act", "mean_act"}
    assert names >= operators | {f"{name}_backward" for name in operators - {"knn"}}


@pytest.mark.parametrize(
    "function",
    ["edge_aggregate", "edge_aggregate_backward", "column_moments", "scale_shift_act_backward", "mean_act"],
)
def test_one_wrong_entry_is_seen(function: str) -> None:
    wrong = [
        c for c in compare_operators(broken(function, last_off), CPU, torch.float32, (2, 13, 4, 5)) if not c.agrees
    ]
    assert wrong and {c.name.split()[0].partition("'")[0] for c in wrong} == {function}


def test_neighbours_too_far_or_twice_are_seen() -> None:
    for spoil in (lambda idx: (idx + 1) % 13, lambda idx: idx[..., :1].expand_as(idx)):
        found = list(compare_operators(broken("knn", spoil), CPU, torch.float32, (2, 13, 4, 5)))
        assert [c.agrees for c in found if c.name.startswith("knn")] == [False, False]


def test_nan_and_another_shape_are_no_agreement() -> None:
    x = torch.ones(3)
    assert largest_difference(torch.full((3,), float("nan")), x) == float("inf")
    assert largest_difference(torch.ones(2), x) == float("inf")
    assert largest_difference(x, x) == 0


def test_a_module_that_forgets_its_norm_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = GlobalFeature.forward
    sizes = [torch.float32], 4, 20, 4, 8

    def shifted(self: GlobalFeature, x: Tensor) -> Tensor:
        return forward(self, x) + (0.1 if self.backend == "fused" else 0)

    monkeypatch.setattr(GlobalFeature, "forward", shifted)
    found = [c for c in compare_modules(CPU, *sizes) if c.name.startswith("GlobalFeature") and "output" in c.name]
    assert len(found) == 10 and not any(c.agrees for c in found)


def test_equal_passes_are_equal() -> None:
    assert count_different_repeats(CPU, "ws_bcn", 2, 20, 4, 16, times=3) == 0
