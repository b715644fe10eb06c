"""`python -m scripts.checks.loops`: what each loop on the CPU takes, one thread, one cloud of 1,024 points, k = 20.

Processor milliseconds, the least of several calls, in float32 and bfloat16: what a loop costs if nothing disturbs it.
The functions are older than this file: copied into a checkout of an earlier commit it measures that one.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
import tyro

from dgcnn_ws.ops import cpu


def least_milliseconds(call: Callable[[], object], calls: int) -> float:
    """Return the least processor time of some calls, after one that may compile."""
    call()
    times = []
    for _ in range(calls):
        begun = time.process_time()
        call()
        times.append(time.process_time() - begun)
    return 1000 * min(times)


def loops(dtype: torch.dtype, num_points: int, k: int) -> dict[str, Callable[[], object]]:
    """Return each loop on random numbers of a type, by name; coordinates are float32."""
    generator = torch.Generator().manual_seed(0)
    graph = cpu.knn(torch.randn(1, num_points, 3, generator=generator), k)
    found: dict[str, Callable[[], object]] = {}

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    for channels in (3, 64, 128):
        x = draw(1, num_points, channels)
        found[f"search, {channels} channels"] = partial(cpu.knn, x if channels == 3 else x.to(dtype), k)
    for channels in (64, 128, 256):
        ab, use_max = draw(1, num_points, 2 * channels).to(dtype), torch.arange(channels) % 3 > 0
        extreme, arg, mean, var = cpu.edge_aggregate(ab, graph, use_max)
        gradients = arg, mean, extreme, mean, var
        found[f"edges forward, {channels}"] = partial(cpu.edge_aggregate, ab, graph, use_max)
        found[f"edges backward, {channels}"] = partial(cpu.edge_aggregate_backward, ab, graph, *gradients)
    y, scale, shift = draw(1, num_points, 1024).to(dtype), draw(1, 1024), draw(1, 1024)
    extreme, arg, mean, var = cpu.column_moments(y, scale[0] > 0)
    found["moments of 1024 forward"] = partial(cpu.column_moments, y, scale[0] > 0)
    found["moments of 1024 backward"] = partial(cpu.column_moments_backward, y, arg, mean, extreme, mean, var)
    found["mean activation of 1024"] = partial(cpu.mean_act, y, scale, shift, 0.2)
    return found


def main(num_points: int = 1024, k: int = 20, calls: int = 15) -> None:
    """Print the table.

    Args:
        num_points: points of the cloud.
        k: neighbours of a point, itself included.
        calls: of which the quickest counts.
    """
    torch.set_num_threads(1)
    print(f"{'':26}  float32  bfloat16")
    tables = [
        {name: least_milliseconds(call, calls) for name, call in loops(dtype, num_points, k).items()}
        for dtype in (torch.float32, torch.bfloat16)
    ]
    for name, milliseconds in tables[0].items():
        print(f"{name:26}  {milliseconds:7.2f}  {tables[1][name]:8.2f}")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m scripts.checks.loops", description=__doc__)
