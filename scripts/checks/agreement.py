"""A device's kernels and layers against float64 on the CPU: how far apart, and how far they may be."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dgcnn_ws import ops
from dgcnn_ws.models import DGCNN
from dgcnn_ws.nn import EdgeConv, GlobalFeature
from dgcnn_ws.nn.norm import NORMS
from dgcnn_ws.ops import reference

Shape = tuple[int, int, int, int]  # clouds, points, neighbours, channels
# Of the largest value; inputs are rounded first, so what remains is the output's rounding and float32 sums.
OPERATOR_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
EXACT = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Comparison:
    """One thing that was compared; `error` is relative, and NaN or a wrong shape count as infinite."""

    name: str
    error: float
    allowed: float

    @property
    def agrees(self) -> bool:
        return self.error <= self.allowed


def largest_difference(found: Tensor, expected: Tensor) -> float:
    """Return max |found − expected| / max |expected|."""
    return _relative(found, expected, lambda values: values.abs().max())


def mean_difference(found: Tensor, expected: Tensor) -> float:
    """Return ‖found − expected‖ / ‖expected‖: one maximum among thousands that another edge wins hardly counts."""
    return _relative(found, expected, lambda values: values.square().mean().sqrt())


def _relative(found: Tensor, expected: Tensor, size: Callable[[Tensor], Tensor]) -> float:
    found, expected = _exact(found), _exact(expected)
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return float("inf")
    if not expected.numel():
        return 0.0
    return float(size(found - expected) / size(expected).clamp_min(1e-3))


def _exact(x: Tensor) -> Tensor:
    return x.detach().cpu().double()


# --- operators ---


def compare_operators(
    kernels: ModuleType, device: torch.device, dtype: torch.dtype, shape: Shape
) -> Iterator[Comparison]:
    """Compare each of `kernels`' functions, forward and backward, with `ops.reference` in float64 on the same input.

    Args:
        kernels: `ops.cuda` or `ops.cpu`.
        shape: B, N, k, C.
    """
    batch, num_points, k, channels = shape
    generator = torch.Generator().manual_seed(0)
    label = f"{str(dtype).removeprefix('torch.')} {'x'.join(map(str, shape))}"

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator).to(device, dtype)

    def compare(function: str, *inputs: Any, skip: int | None = None) -> Any:
        """Run one function both ways; return what the kernels gave and the comparison, `skip` left out."""
        found = getattr(kernels, function)(*inputs)
        expected = getattr(reference, function)(*(_as_reference(value) for value in inputs))
        pairs = zip(*((t,) if isinstance(t, Tensor) else t for t in (found, expected)), strict=True)
        errors = [(largest_difference(a, b), a.dtype) for i, (a, b) in enumerate(pairs) if i != skip]
        # What is kept in float32 is held to that, whatever the type of the features.
        error, kind = max(errors, key=lambda e: e[0] / OPERATOR_TOLERANCE.get(e[1], 1e-5))
        return found, Comparison(f"{function} {label}", error, OPERATOR_TOLERANCE.get(kind, 1e-5))

    for axes in (3, max(channels, 17)):  # by differences, and by products
        x = draw(batch, num_points, axes)
        yield Comparison(f"knn {label}, {axes} axes", _knn_error(x, kernels.knn(x, k)), 1e-5)

    sign = (torch.arange(channels) % 3 > 0).to(device)
    idx = torch.rand(batch, num_points, num_points, generator=generator).argsort(2)[..., :k].to(device)
    ab, y = draw(batch, num_points, 2 * channels), draw(batch, num_points, channels)
    (extreme, arg, mean, _), comparison = compare("edge_aggregate", ab, idx, sign, skip=1)
    yield comparison
    a, b = _exact(ab).chunk(2, dim=2)
    slots = idx.cpu().gather(2, arg.cpu().long().clamp(0, k - 1))  # (B, N, C)
    yield Comparison(
        f"edge_aggregate's slots {label}",
        largest_difference(extreme, b + a.gather(1, slots)),
        OPERATOR_TOLERANCE[dtype],
    )
    g_point, g_mean, g_var = draw(*extreme.shape), *(draw(batch, channels).to(mean.dtype) for _ in range(2))
    for gradients in ((g_point, g_mean, g_var), (g_point, None, None), (None, g_mean, None)):
        yield compare("edge_aggregate_backward", ab, idx, arg, mean, *gradients)[1]

    (extreme, arg, mean, _), comparison = compare("column_moments", y, sign, skip=1)
    yield comparison
    chosen = _exact(y).gather(1, arg.cpu().clamp(0, num_points - 1).unsqueeze(1)).squeeze(1)
    yield Comparison(f"column_moments' points {label}", largest_difference(extreme, chosen), 0.0)
    g_cloud = draw(batch, channels)
    for gradients in ((g_cloud, g_mean, g_var), (g_cloud, None, None)):
        yield compare("column_moments_backward", y, arg, mean, *gradients)[1]

    scale, shift = (draw(batch, channels).to(mean.dtype) for _ in range(2))
    y = _away_from_zero(y, scale, shift)
    for function, gradient in (("scale_shift_act", g_point), ("mean_act", g_cloud)):
        yield compare(function, y, scale, shift, 0.2)[1]
        yield compare(f"{function}_backward", gradient, y, scale, shift, 0.2)[1]


def _as_reference(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return _exact(value) if value.is_floating_point() else value.cpu()


def _knn_error(x: Tensor, idx: Tensor) -> float:
    """Return how much farther than necessary the neighbours are; infinite where they are not k distinct points."""
    points, idx = _exact(x), idx.cpu().sort(2).values
    if (idx.diff(dim=2) == 0).any() or idx.min() < 0 or idx.max() >= x.shape[1]:
        return float("inf")
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    found = distances.gather(2, idx).sort(2).values
    return largest_difference(found, distances.sort(2).values[..., : idx.shape[2]])


def _away_from_zero(y: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Move the y whose z = scale y + shift lies near 0, where rounding alone decides the gradient."""
    for _ in range(20):
        z = y.double() * scale.double().unsqueeze(1) + shift.double().unsqueeze(1)
        y = torch.where(z.abs() < 1e-3, y + 1, y)
    return y


# --- layers and networks ---


def small_modules(num_points: int, k: int, width: int) -> dict[str, Callable[[str, str], nn.Module]]:
    """Return what builds each module, from a norm and a backend, and small enough for float64 on the CPU."""
    network: dict[str, Any] = {"widths": (width, width), "emb_dims": 2 * width, "hidden": (width,)}
    network |= {"dropout": 0.0, "groups": 4}
    return {
        "EdgeConv": lambda norm, backend: EdgeConv(3, width, k, norm, backend, groups=4),
        "GlobalFeature": lambda norm, backend: GlobalFeature(3, width, norm, backend, groups=4),
        "DGCNN": lambda norm, backend: DGCNN(5, k, norm, None, backend, **network),
    }


def compare_modules(
    device: torch.device, dtypes: Sequence[torch.dtype], batch: int, num_points: int, k: int, width: int
) -> Iterator[Comparison]:
    """Compare outputs, gradients and running statistics of each module with its reference backend in float64.

    Maxima and neighbours that nearly tie fall differently in another precision, for any implementation. So the
    reference backend on the same device and in the same precision is the yardstick: we may err three times as much.
    """
    x = torch.randn(batch, 3, num_points, generator=torch.Generator().manual_seed(1))
    for name, make in small_modules(num_points, k, width).items():
        graph = (ops.knn(x.transpose(1, 2), k),) if name == "EdgeConv" else ()
        for norm in NORMS:
            for training in (True, False):
                torch.manual_seed(0)
                exact = _with_odd_statistics(make(norm, "reference")).train(training)
                modules = {backend: make(norm, backend) for backend in ("reference", "fused")}
                for module in modules.values():
                    module.load_state_dict(exact.state_dict())
                    module.to(device).train(training)
                with ops.kernels("torch"):
                    expected = _outcome(exact.double(), torch.float64, x.double(), *graph)
                inputs = [value.to(device) for value in (x, *graph)]
                for dtype in dtypes:
                    if name == "DGCNN" and dtype not in EXACT:
                        continue  # a rounded layer has other neighbours in the next: nothing to hold it to
                    # A pass moves running statistics: each gets modules of its own.
                    found = {b: _outcome(copy.deepcopy(m), dtype, *inputs) for b, m in modules.items()}
                    label = f"{name} {norm} {'train' if training else 'eval'} {str(dtype).removeprefix('torch.')}"
                    floors = {"output": 1e-4, "gradients": 2e-2, "statistics": 1e-4}
                    if name == "DGCNN":
                        floors = dict.fromkeys(floors, 2e-2)
                    if dtype not in EXACT:  # the two terms of an edge are rounded before they are added
                        floors = {"output": 5e-2, "gradients": 0.3, "statistics": 5e-2}
                    for kind, floor in floors.items():
                        errors = {b: _largest(values[kind], expected[kind]) for b, values in found.items()}
                        allowed = floor + 3 * errors["reference"]
                        yield Comparison(f"{label} {kind}", errors["fused"], allowed)


def _with_odd_statistics(module: nn.Module) -> nn.Module:
    """Give norms factors of both signs, and running statistics of their own."""
    for name, value in module.state_dict().items():
        if value.dim() == 1 and name.endswith("var"):
            value.uniform_(0.5, 2)
        elif value.dim() == 1 and value.is_floating_point():
            value.normal_()
    return module


def _outcome(module: nn.Module, dtype: torch.dtype, x: Tensor, *graph: Tensor) -> dict[str, dict[str, Tensor]]:
    x = x.clone().requires_grad_()
    with torch.autocast(x.device.type, dtype, enabled=dtype not in EXACT):
        out = module(x, *graph)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out))
    assert x.grad is not None
    gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    statistics = {name: value for name, value in module.named_buffers() if value.is_floating_point()}
    return {"output": {"": out}, "gradients": {"x": x.grad, **gradients}, "statistics": statistics}


def _largest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    if found.keys() != expected.keys():
        return float("inf")
    return max((mean_difference(found[name], value) for name, value in expected.items()), default=0.0)


# --- repetition and compilation ---


def count_different_repeats(
    device: torch.device, norm: str, batch: int, num_points: int, k: int, emb_dims: int, times: int
) -> int:
    """Return how many of `times` equal training passes differ from the first in any bit of loss or gradient."""
    torch.manual_seed(0)
    model = DGCNN(10, k, norm, emb_dims=emb_dims, dropout=0.0).to(device)
    state = copy.deepcopy(model.state_dict())
    x = torch.randn(batch, 3, num_points, generator=torch.Generator().manual_seed(1)).to(device)

    def training_pass() -> list[Tensor]:
        model.load_state_dict(state)
        model.zero_grad()
        loss = model(x).logsumexp(1).sum()
        loss.backward()
        return [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]

    first = training_pass()
    return sum(
        not all(torch.equal(a, b) for a, b in zip(first, training_pass(), strict=True)) for _ in range(times - 1)
    )


def compare_compiled(
    device: torch.device, backend: str, batch: int, num_points: int, k: int, emb_dims: int
) -> Iterator[Comparison]:
    """Compare DGCNN compiled by torch.compile with itself, run as it is: logits and gradients."""
    torch.manual_seed(0)
    model = DGCNN(10, k, "ws_gn", emb_dims=emb_dims, dropout=0.0).to(device)
    compiled = copy.deepcopy(model)
    compiled.compile(backend=backend)
    x = torch.randn(batch, 3, num_points, generator=torch.Generator().manual_seed(1)).to(device)
    expected, found = (_outcome(module, torch.float32, x) for module in (model, compiled))
    for kind in ("output", "gradients"):
        yield Comparison(f"torch.compile ({backend}) {kind}", _largest(found[kind], expected[kind]), 2e-2)
