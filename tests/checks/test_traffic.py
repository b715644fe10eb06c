"""Collectives are counted, in any thread, and nothing else is; and they leave nothing behind."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from scripts.checks.traffic import NAMES, Collectives


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_counts_calls_and_bytes(group: None) -> None:
    before = [getattr(dist, name) for name in NAMES]
    with Collectives() as sent:
        dist.all_reduce(torch.zeros(7, dtype=torch.float64))
        thread = threading.Thread(target=lambda: dist.all_reduce(torch.zeros(5)))
        thread.start()
        thread.join()
        torch.ones(3) + 1
    assert sent.calls == {"all_reduce": 2} and sent.bytes == {"all_reduce": 7 * 8 + 5 * 4}
    with Collectives() as sent:
        dist.all_gather(tensor_list=[torch.zeros(2)], tensor=torch.ones(2))
        dist.barrier()
    assert sent.calls == {"all_gather": 1, "barrier": 1} and sent.bytes == {"all_gather": 8, "barrier": 0}
    assert [getattr(dist, name) for name in NAMES] == before
