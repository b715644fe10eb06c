"""Collectives are counted wherever they are issued, and nothing else is."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from scripts.checks.traffic import Collectives


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_counts_calls_and_bytes(group: None) -> None:
    model = DistributedDataParallel(torch.nn.Linear(3, 5))
    with Collectives() as sent:
        dist.all_reduce(torch.zeros(7, dtype=torch.float64))
        model(torch.ones(2, 3)).sum().backward()
        torch.ones(3) + 1
    assert sent.calls == {"allreduce_": 2} and sent.bytes == {"allreduce_": 7 * 8 + 20 * 4}
    with Collectives() as sent:
        dist.all_gather([torch.zeros(2)], torch.ones(2))
    assert sent.calls == {"allgather_": 1} and sent.bytes == {"allgather_": 8}
