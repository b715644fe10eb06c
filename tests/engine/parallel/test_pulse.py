"""A process that is cut off is noticed, and named by one that is left."""

import subprocess
import sys
import time
from datetime import timedelta

import pytest
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from dgcnn_ws.engine.parallel import pulse
from dgcnn_ws.engine.parallel.pulse import Pulse


def test_of_three_the_silent_one_is_named_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "BEAT", 0.05)
    server = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=1), wait_for_workers=False)

    def start(rank: int) -> Pulse:
        own = TCPStore("127.0.0.1", server.port, None, False, timedelta(seconds=1))
        return Pulse(PrefixStore("try", own), rank, ["node1", "node2", "node3"])

    class Cut:
        """A store that cannot be reached."""

        def set(self, name: str, value: str) -> None:
            raise dist.DistNetworkError("unreachable")

    first, second, third = map(start, range(3))
    said: list[tuple[int, str]] = []
    with first.watching(lambda words: said.append((0, words))), second.watching(lambda words: said.append((1, words))):
        time.sleep(pulse.SILENCE * 0.05 * 3)
        assert not said  # all live
        third.store = Cut()  # type: ignore[assignment]
        while {rank for rank, _ in said} != {0, 1}:
            time.sleep(0.01)
    words = dict(said)
    assert words[1] == "" and "process 2 (on node3), counted from 0" in words[0] and "--resume" in words[0]


def test_a_process_ends_well_in_the_middle_of_a_beat() -> None:
    """A thread that is inside torch when Python ends would end all with "terminate called" and a signal."""
    code = """
import subprocess
import sys
import time
from datetime import timedelta
from torch.distributed import PrefixStore, TCPStore
from dgcnn_ws.engine.parallel import pulse
pulse.BEAT = 1e-4
server = TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=1), wait_for_workers=False)
for rank in range(3):
    store = TCPStore("127.0.0.1", server.port, None, False, timedelta(seconds=1))
    pulse.Pulse(PrefixStore("try", store), rank, ["node"] * 3)
time.sleep(0.2)
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
