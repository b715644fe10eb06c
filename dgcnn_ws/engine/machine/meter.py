"""What training steps cost: seconds and memory."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from dgcnn_ws.engine.machine.devices import memory_bytes, peak_memory_bytes, reset_peak_memory
from dgcnn_ws.engine.state import Progress


class Meter:
    """Adds what an epoch's steps take to a run's progress.

    Args:
        device: where they are taken.
        recorded: the first step records the others (CUDA graph): what it takes is theirs.
    """

    def __init__(self, device: torch.device, recorded: bool) -> None:
        self.device = device
        self.idle_bytes = memory_bytes(device) if recorded else None

    @contextmanager
    def epoch(self, progress: Progress) -> Iterator[None]:
        """Measure the block; one that raises is not counted."""
        reset_peak_memory(self.device)
        begun = time.perf_counter()
        yield
        progress.seconds += time.perf_counter() - begun
        peak = peak_memory_bytes(self.device)
        progress.peak_memory_bytes = max(progress.peak_memory_bytes, peak)
        if self.idle_bytes is not None:
            progress.memory_bytes = max(progress.memory_bytes, peak - self.idle_bytes)

    def after_step(self) -> None:
        """Forget what the process's first step took, libraries too: it is there to stay."""
        if self.idle_bytes is None:
            reset_peak_memory(self.device)
            self.idle_bytes = memory_bytes(self.device)
