"""Whether the other processes of a run live: a machine that is cut off ends no connection."""

import atexit
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]

BEAT = 5.0  # seconds between two signs of life
SILENCE = 12  # beats without one after which a process counts as lost: a minute


class Pulse:
    """Signs of life that this process gives, and watches for, through the run's store.

    What is counted are this process's own beats, no clock: machines may differ in theirs, and processes that are
    suspended together go on together.

    Args:
        store: that this process uses for nothing else.
        rank: this process's number.
        hosts: the machine of each process.
    """

    def __init__(self, store: PrefixStore, rank: int, hosts: list[str]) -> None:
        self.store, self.rank, self.hosts = store, rank, hosts
        self.silent = [0] * len(hosts)  # beats since each was last heard of
        self.end: Callable[[str], None] | None = None
        self.over = threading.Event()
        self.threads = [threading.Thread(target=task, daemon=True) for task in (self._exchange, self._judge)]
        for thread in self.threads:
            thread.start()
        atexit.register(self._stop)

    @contextmanager
    def watching(self, end: Callable[[str], None]) -> Iterator[None]:
        """Watch while the block lasts: outside it a process may be busy for long, or have ended well.

        Args:
            end: called where others are lost, by the first that is left with a sentence, by others with none.
        """
        self.silent = [0] * len(self.hosts)
        self.end = end
        try:
            yield
        finally:
            self.end = None

    def _stop(self) -> None:
        """End both threads: Python must not end while one of them is inside torch, which would abort the process."""
        self.over.set()
        for thread in self.threads:
            thread.join(2 * BEAT + 1)

    def _exchange(self) -> None:
        names = [f"pulse/{rank}" for rank in range(len(self.hosts))]
        heard: Sequence[bytes] = [b""] * len(names)
        beat = 0
        while not self.over.is_set():
            beat += 1
            try:
                self.store.set(names[self.rank], str(beat))
                values: Sequence[bytes] = self.store.multi_get(names)
            except dist.DistNetworkError:  # the store is lost, and with it the first process
                return
            except dist.DistError:  # not all are there yet
                values = heard
            for rank, value in enumerate(values):
                if value != heard[rank]:
                    self.silent[rank] = 0
            heard = values
            self.over.wait(BEAT)

    def _judge(self) -> None:
        while not self.over.wait(BEAT):
            self.silent = [beats + 1 for beats in self.silent]
            lost = [rank for rank, beats in enumerate(self.silent) if beats > SILENCE and rank != self.rank]
            if lost and self.end is not None:
                self.end(self._sentence(lost) if set(range(self.rank)) <= set(lost) else "")

    def _sentence(self, lost: list[int]) -> str:
        who = ", ".join(f"{rank} (on {self.hosts[rank]})" for rank in lost)
        return (
            f"nothing was heard for {BEAT * SILENCE:.0f} s of this run's process {who}, counted from 0: a machine, or "
            "the network to it, is lost. The last checkpoint is kept: go on with --resume."
        )
