"""What a network costs: time and memory per cloud, beside the reference and the unavoidable arithmetic.

Implementations are timed in turns (A B A B ...) within one process, and compared within each turn: a machine
that slows down slows all of them down. Memory is read in a process of its own.
"""

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws import ops
from dgcnn_ws.benchmark import ragged
from dgcnn_ws.engine.machine.devices import memory_bytes, peak_memory_bytes, reset_peak_memory
from dgcnn_ws.models import DGCNN
from dgcnn_ws.nn.edge_conv import EdgeConv
from dgcnn_ws.nn.norm import make_layer, norm_kind
from dgcnn_ws.proc import proc_bytes

NUM_CLASSES = 40
CHANNELS = (3, 64, 64, 128, 256)  # of the points, then of each EdgeConv's output
HIDDEN = (512, 256)
GROUPS = 16
IMPLEMENTATIONS = {
    "train": ("reference", "fused"),
    "inference": ("reference", "fused"),
    "layers": ("reference", "fused", "torch_geometric"),
    "ragged": ("torch_geometric", "fused"),
    "ragged_deep": ("torch_geometric", "fused"),
}  # the first is what the others' speed-up is over
LONG = 2.0  # seconds of a step that is neither repeated to warm up nor to average
SHORTEST = 0.1  # seconds a time is taken over: shorter steps are repeated

Step = Callable[[int], object]  # one step on the first so many clouds of the batch
Times = dict[str, list[float]]  # seconds of each round, by what was timed
Product = Callable[[Tensor, Tensor], Tensor]  # (rows, C), (C', C) -> (rows, C')


@dataclass(frozen=True)
class Setting:
    """What every implementation does in turn: a training step, inference, or EdgeConvs on a given graph.

    Of ragged clouds num_points is what the largest has.
    """

    mode: str
    norm: str
    num_points: int
    batch_size: int
    k: int = 20
    emb_dims: int = 1024
    precision: str = "32"
    device: str = "cpu"
    threads: int = 1

    @property
    def sizes(self) -> list[int]:
        """The points of each ragged cloud."""
        return ragged.cloud_sizes(self.batch_size, self.num_points, self.k)

    @property
    def head_norm(self) -> str | None:
        """The head's norm word; None for the norm's default, except where that cannot train on one cloud."""
        alone = self.mode == "train" and self.batch_size == 1
        return "est" if alone and norm_kind(self.norm).uses_batch_statistics else None

    def autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16")


# --- the floor: arithmetic that no implementation avoids ---


def ragged_multiply_adds(setting: Setting) -> dict[str, int]:
    """Return the multiply-adds of a ragged cloud, on average: its first convolution on points, others on edges."""
    points, widths = sum(setting.sizes) / setting.batch_size, ragged.CHANNELS[setting.mode]
    deeper = sum(points * setting.k * c_in * c_out for c_in, c_out in pairwise(widths))
    return {"edge_convs": round(3 * (points * ragged.IN_CHANNELS * 2 * widths[0] + deeper))}


def multiply_adds(mode: str, num_points: int, emb_dims: int = 1024) -> dict[str, int]:
    """Return the multiply-adds of one cloud that no implementation avoids, part by part.

    With N points and widths C_0 = 3, C_1, ...: neighbour distances Σ N² C_i, which have no backward pass;
    EdgeConvs Σ N C_i 2C_{i+1}, on points instead of edges; the shared convolution N (Σ C_i) emb_dims; the
    head. A backward pass costs each product twice more, for its weight and its input (not the first one's).

    Args:
        mode: `train` · `inference` · `layers` (forward and backward of the EdgeConvs, graph given).
    """
    widths = list(pairwise(CHANNELS))
    edge_convs = sum(num_points * c_in * 2 * c_out for c_in, c_out in widths)
    first = num_points * CHANNELS[0] * 2 * CHANNELS[1]
    head = sum(c_in * c_out for c_in, c_out in pairwise((2 * emb_dims, *HIDDEN, NUM_CLASSES)))
    distances = sum(num_points**2 * c_in for c_in, _ in widths)
    shared = num_points * sum(CHANNELS[1:]) * emb_dims
    if mode == "layers":
        return {"edge_convs": 3 * edge_convs - first}
    if mode == "train":
        edge_convs, shared, head = 3 * edge_convs - first, 3 * shared, 3 * head
    return {"distances": distances, "edge_convs": edge_convs, "shared": shared, "head": head}


def product_steps(setting: Setting) -> dict[str, Step]:
    """Return the shared convolution's product by each routine, in each type the setting computes with."""
    rows, c_in, device = setting.num_points, sum(CHANNELS[1:]), setting.device
    routines: dict[str, Product] = {"mm": lambda x, weight: torch.mm(x, weight.t()), "linear": ops.linear}

    def step(product: Product, x: Tensor, weight: Tensor) -> Step:
        return lambda clouds: product(x[: clouds * rows], weight)

    steps = {}
    for dtype in (torch.float32, torch.bfloat16) if setting.precision == "bf16" else (torch.float32,):
        x = torch.randn(setting.batch_size * rows, c_in, device=device).to(dtype)
        weight = torch.randn(setting.emb_dims, c_in, device=device).to(dtype)
        for name, product in routines.items():
            steps[f"{str(dtype).removeprefix('torch.')} {name}"] = step(product, x, weight)
    return steps


def product_multiply_adds(setting: Setting) -> int:
    """Return the multiply-adds of one of `product_steps` on the whole batch."""
    return setting.batch_size * setting.num_points * sum(CHANNELS[1:]) * setting.emb_dims


def floor_seconds(setting: Setting, products: Times) -> list[float]:
    """Return each round's seconds of a cloud's unavoidable arithmetic, at the best product's rate.

    Args:
        products: of each of `product_steps`. The points' own distances, 3 channels' worth, stay float32.
    """
    size = product_multiply_adds(setting)
    if setting.mode in ragged.CHANNELS:
        adds = ragged_multiply_adds(setting)
    else:
        adds = multiply_adds(setting.mode, setting.num_points, setting.emb_dims)
    coordinates = setting.num_points**2 * CHANNELS[0] if "distances" in adds else 0
    best = [min(times) / size for times in zip(*products.values(), strict=True)]
    exact = [times for name, times in products.items() if name.startswith("float32")]
    best_exact = [min(times) / size for times in zip(*exact, strict=True)]
    others = sum(adds.values()) - coordinates
    return [others * b + coordinates * e for b, e in zip(best, best_exact, strict=True)]


# --- what is measured ---


def make_step(setting: Setting, implementation: str) -> Step:
    """Return a step on random clouds, with weights, optimizer state and input in place."""
    torch.manual_seed(0)
    if setting.mode in ragged.CHANNELS:
        return _ragged_step(setting, implementation)
    points = F.normalize(torch.randn(setting.batch_size, 3, setting.num_points), dim=1).to(setting.device)
    if setting.mode == "layers":
        return _layers_step(setting, implementation, points)
    model = DGCNN(
        NUM_CLASSES,
        setting.k,
        setting.norm,
        setting.head_norm,
        implementation,
        widths=CHANNELS[1:],
        emb_dims=setting.emb_dims,
        hidden=HIDDEN,
        groups=GROUPS,
    ).to(setting.device)
    make = training_step if setting.mode == "train" else inference_step
    return make(setting, model, points)


def training_step(setting: Setting, model: nn.Module, points: Tensor) -> Step:
    """Return a training step of a classifier on points (B, 3, N): forward and backward pass, Adam."""
    labels = torch.arange(len(points), device=points.device) % NUM_CLASSES
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()  # makes its state, which is no cloud's memory
    optimizer.zero_grad()

    def step(clouds: int) -> None:
        with setting.autocast():
            loss = F.cross_entropy(model(points[:clouds]), labels[:clouds])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def inference_step(setting: Setting, model: nn.Module, points: Tensor) -> Step:
    """Return inference on points (B, 3, N): a forward pass in evaluation mode."""
    model.eval()

    def step(clouds: int) -> None:
        with torch.inference_mode(), setting.autocast():
            model(points[:clouds])

    return step


class PerCloudNorm(nn.Module):
    """Normalise each cloud's edges by a norm over (B, C, *); all clouds have as many: (E, C) -> (E, C)."""

    def __init__(self, norm: nn.Module, edges_per_cloud: int) -> None:
        super().__init__()
        self.norm, self.edges_per_cloud = norm, edges_per_cloud

    def forward(self, edges: Tensor) -> Tensor:
        # As an image whose channels lie last in memory, which torch's group norm takes without a copy.
        image = edges.unflatten(0, (-1, self.edges_per_cloud, 1)).permute(0, 3, 1, 2)
        return self.norm(image).permute(0, 2, 3, 1).flatten(0, 2)


def edge_convs(setting: Setting, implementation: str) -> nn.ModuleList:
    """Return the network's four EdgeConvs, ours or torch_geometric's.

    They compute one function of the same weights, but for their order: torch_geometric's edge features are
    [x_i ; x_j − x_i].
    """
    if implementation != "torch_geometric":
        return nn.ModuleList(
            EdgeConv(c_in, c_out, setting.k, setting.norm, implementation, groups=GROUPS)
            for c_in, c_out in pairwise(CHANNELS)
        )
    from torch_geometric.nn import EdgeConv as GeometricEdgeConv  # seconds to import, and one mode's alone

    layers = nn.ModuleList()
    for c_in, c_out in pairwise(CHANNELS):
        linear, norm = make_layer(setting.norm, 2 * c_in, c_out, bias=False, groups=GROUPS, dims=0)
        if not norm_kind(setting.norm).uses_batch_statistics:
            norm = PerCloudNorm(norm, setting.num_points * setting.k)
        layers.append(GeometricEdgeConv(nn.Sequential(linear, norm, nn.LeakyReLU(0.2)), aggr="max"))
    return layers


def edge_index_of(idx: Tensor) -> Tensor:
    """Return torch_geometric's (2, B N k) form of a graph (B, N, k): sources above targets."""
    B, N, k = idx.shape
    sources = idx + N * torch.arange(B, device=idx.device).view(B, 1, 1)
    targets = torch.arange(B * N, device=idx.device).repeat_interleave(k)
    return torch.stack([sources.flatten(), targets])


def _layers_step(setting: Setting, implementation: str, points: Tensor) -> Step:
    layers = edge_convs(setting, implementation).to(setting.device)
    graph = ops.knn(points.transpose(1, 2), setting.k)  # (B, N, k), for all four
    gradient = torch.randn(len(points), CHANNELS[-1], setting.num_points, device=points.device)
    if implementation == "torch_geometric":
        points, gradient = (x.transpose(1, 2).flatten(0, 1).contiguous() for x in (points, gradient))
        graph = edge_index_of(graph)

    def step(clouds: int) -> None:
        share = slice(len(points) * clouds // setting.batch_size)  # of clouds, or of all clouds' points
        x = points[share]
        idx = graph[:, : len(x) * setting.k] if implementation == "torch_geometric" else graph[share]
        with setting.autocast():
            for layer in layers:
                x = layer(x, idx)
        x.backward(gradient[share].to(x.dtype))
        layers.zero_grad()

    return step


def _ragged_step(setting: Setting, implementation: str) -> Step:
    sizes = setting.sizes
    layer = ragged.make_edge_conv(setting.mode, setting.norm, GROUPS, implementation).to(setting.device)
    points, edge_index, batch = (tensor.to(setting.device) for tensor in ragged.clouds_of(sizes, setting.k))
    gradient = torch.randn(len(points), ragged.CHANNELS[setting.mode][-1], device=points.device)
    points.requires_grad_()

    def step(clouds: int) -> None:
        count = sum(sizes[:clouds])
        with setting.autocast():
            out = ragged.call(layer, points[:count], edge_index[:, : count * setting.k], batch[:count])
        out.backward(gradient[:count].to(out.dtype))
        layer.zero_grad()
        points.grad = None

    return step


# --- time ---


def _synchronize(setting: Setting) -> None:
    if torch.device(setting.device).type == "cuda":
        torch.cuda.synchronize(setting.device)


def _seconds(
    setting: Setting, step: Step, clouds: int, repeats: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    _synchronize(setting)
    begun = clock()
    for _ in range(repeats):
        step(clouds)
    _synchronize(setting)
    return (clock() - begun) / repeats


def _warm_up(setting: Setting, step: Step) -> int:
    """Run a step twice on a few clouds and, unless that takes long, on all; return how often to repeat it."""
    few = min(2, setting.batch_size)  # batch norm in the head needs two
    step(few)
    seconds = _seconds(setting, step, few) * setting.batch_size / few
    if seconds < LONG:
        seconds = _seconds(setting, step, setting.batch_size)
    return min(max(math.ceil(SHORTEST / seconds), 1), 1000)


def time_rounds(
    setting: Setting,
    steps: dict[str, Step],
    rounds: int,
    patience: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Times:
    """Time steps on the whole batch in turns, and return the seconds of each, one number a round.

    Args:
        steps: what to time, by name; each is warmed up first.
        rounds: turns; after `patience` seconds no further one begins, but there are always two (or `rounds`).
        clock: what tells the seconds.
    """
    repeats = {name: _warm_up(setting, step) for name, step in steps.items()}
    times: Times = {name: [] for name in steps}
    begun = time.perf_counter()
    for turn in range(rounds):
        if turn >= 2 and time.perf_counter() - begun > patience:
            break
        for name, step in steps.items():
            times[name].append(_seconds(setting, step, setting.batch_size, repeats[name], clock))
    return times


# --- memory ---


def edge_tensor_bytes(setting: Setting, implementation: str) -> int:
    """Estimate the bytes of all tensors with a row for each edge that exist at the same time."""
    if implementation == "fused":
        return 0
    if setting.mode in ragged.CHANNELS:
        return 4 * sum(setting.sizes) * setting.k * ragged.numbers_per_edge(setting.mode)
    edges = setting.batch_size * setting.num_points * setting.k
    widths = list(pairwise(CHANNELS))
    if setting.mode == "inference":  # one layer's edge features, product, norm and activation
        return 4 * edges * max(2 * c_in + 3 * c_out for c_in, c_out in widths)
    # Kept for the backward pass: edge features, product, norm, activation; and the last layer's gradients.
    return 4 * edges * (sum(2 * c_in + 3 * c_out for c_in, c_out in widths) + 3 * CHANNELS[-1])


def free_memory_bytes(device: torch.device) -> int:
    """Return the memory that the device has to spare; the machine's whole memory where it does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = proc_bytes("meminfo", "MemAvailable")
    return available or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _peak_above_idle(setting: Setting, implementation: str) -> int:
    """Return the most bytes that one or two steps take above what the process holds before them."""
    device = torch.device(setting.device)
    small = replace(setting, num_points=min(setting.num_points, max(setting.k, 64)))
    make_step(small, implementation)(setting.batch_size)  # what is loaded once is no cloud's memory
    step = make_step(setting, implementation)
    reset_peak_memory(device)
    idle = memory_bytes(device)
    if _seconds(setting, step, setting.batch_size) < LONG:
        step(setting.batch_size)
    _synchronize(setting)
    return peak_memory_bytes(device) - idle


def _send_peak(connection: Connection, setting: Setting, implementation: str) -> None:
    torch.set_num_threads(setting.threads)
    connection.send(_peak_above_idle(setting, implementation))


def peak_memory(setting: Setting, implementation: str) -> int | None:
    """Return the bytes that a step takes above the idle process; None where the system ran out of memory.

    On CUDA what torch's allocator handed out; on the CPU what a process of its own, started here, held.
    """
    if torch.device(setting.device).type == "cuda":
        try:
            return _peak_above_idle(setting, implementation)
        except torch.OutOfMemoryError:
            return None
    context: Any = multiprocessing.get_context("spawn")
    if sys.platform == "linux":  # processes forked from one that has imported torch, and done nothing else
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "dgcnn_ws.ops.cpu"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(sender, setting, implementation), daemon=True)
    # Inherited by what is started here: Ctrl-C is for this process alone to handle.
    on_interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, on_interrupt)
    sender.close()
    try:
        peak: int = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            return None
        raise RuntimeError(f"measuring the memory of {implementation} at {setting} failed.") from None
    finally:
        process.terminate()
        process.join()
    return peak


# --- all of it ---


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def measure(setting: Setting, rounds: int, patience: float, max_memory_bytes: float) -> list[dict[str, Any]]:
    """Measure every implementation of a mode at one setting.

    Args:
        rounds, patience: see `time_rounds`.
        max_memory_bytes: what needs more than this for its edge tensors is not run.

    Returns:
        One JSON-ready row an implementation; `refusal` says why one was not run, or is None.
    """
    rows = {}
    for name in IMPLEMENTATIONS[setting.mode]:
        rows[name] = {
            "mode": setting.mode,
            "norm": setting.norm,
            "precision": setting.precision,
            "head_norm": setting.head_norm,
            "num_points": setting.num_points,
            "batch_size": setting.batch_size,
            "implementation": name,
        } | _memory(setting, name, max_memory_bytes)
    run = [name for name, row in rows.items() if row["refusal"] is None]
    steps = {name: make_step(setting, name) for name in run}
    times = time_rounds(setting, steps | product_steps(setting), rounds, patience)
    products = {name: seconds for name, seconds in times.items() if name not in rows}
    floor = floor_seconds(setting, products)
    size = product_multiply_adds(setting)
    for name in run:
        seconds = times[name]
        rows[name] |= {
            "milliseconds_per_cloud": spread([1000 * s / setting.batch_size for s in seconds]),
            "floor_milliseconds_per_cloud": spread([1000 * f for f in floor]),
            "times_floor": spread([s / setting.batch_size / f for s, f in zip(seconds, floor, strict=True)]),
            "product_gflops": {product: 2e-9 * size / median(taken) for product, taken in products.items()},
            "rounds": len(seconds),
        }
        if (first := IMPLEMENTATIONS[setting.mode][0]) in run:
            ratios = [r / s for r, s in zip(times[first], seconds, strict=True)]
            rows[name]["speedup"] = spread(ratios)
    return list(rows.values())


def _memory(setting: Setting, implementation: str, max_memory_bytes: float) -> dict[str, Any]:
    needed = edge_tensor_bytes(setting, implementation)
    if needed > max_memory_bytes:
        return {"refusal": f"needs about {needed / 1e9:.1f} GB"}
    peak = peak_memory(setting, implementation)
    if peak is None:
        return {"refusal": "out of memory"}
    return {"refusal": None, "memory_bytes_per_cloud": peak / setting.batch_size}


def profile_training_step(setting: Setting, top: int = 15) -> list[dict[str, Any]]:
    """Return the operators that take longest of one fused training step: names, calls, ms and share."""
    device = torch.device(setting.device)
    setting = replace(setting, mode="train")
    step = make_step(setting, "fused")
    _warm_up(setting, step)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step(setting.batch_size)
        _synchronize(setting)
    field = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    events = [(event.key, event.count, getattr(event, field)) for event in profiler.key_averages()]
    total = sum(microseconds for _, _, microseconds in events)
    return [
        {"operator": name, "calls": calls, "milliseconds": microseconds / 1000, "share": microseconds / total}
        for name, calls, microseconds in sorted(events, key=lambda event: -event[2])[:top]
    ]
