"""A cable of a given rate and delay, which frames take one after another.

For kernels without netem (`tc`): the machine's network device and the port of the switch are both ours (TAP), and what
one sends is handed to the other when it would have arrived.
"""

import fcntl
import multiprocessing
import os
import select
import struct
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

TUNSETIFF = 0x400454CA  # of Linux's linux/if_tun.h, as the next two
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
LARGEST = 65535  # bytes of a frame
QUEUE = 2_000_000  # bytes that wait for their turn; what comes when it is full is dropped, as by a switch


def open_tap(name: str) -> int:
    """Make the network device `name` in this namespace, and return the file that is its other end."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return file


@dataclass
class Lane:
    """One direction of a cable: from the file `source` to the file `target`."""

    source: int
    target: int
    rate: float
    delay: float
    free: float = 0.0  # when the last frame has been sent
    held: int = 0  # bytes on their way
    frames: deque[tuple[float, bytes]] = field(default_factory=deque)  # with the time of each one's arrival

    def take(self) -> None:
        """Send what the device has for us."""
        try:
            frame = os.read(self.source, LARGEST)
        except BlockingIOError:
            return
        if self.held + len(frame) > QUEUE:
            return
        self.free = max(self.free, time.monotonic()) + len(frame) / self.rate
        self.held += len(frame)
        self.frames.append((self.free + self.delay, frame))

    def deliver(self) -> float | None:
        """Hand over what has arrived; return the seconds until the next will have, None where nothing is on its way."""
        while self.frames:
            wait = self.frames[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, frame = self.frames.popleft()
            self.held -= len(frame)
            with suppress(OSError):  # the device is down
                os.write(self.target, frame)
        return None


def lay(one: str, other: str, rate: float, delay: float) -> None:
    """Make two network devices, and a process that is the cable between them until this one ends.

    Args:
        one, other: the devices' names, in this namespace.
        rate: bytes/s, in each direction.
        delay: seconds, in each direction.
    """
    ends = open_tap(one), open_tap(other)
    multiprocessing.get_context("fork").Process(target=_carry, args=(ends, rate, delay), daemon=True).start()
    for end in ends:
        os.close(end)


def _carry(ends: tuple[int, int], rate: float, delay: float) -> None:
    lanes = {files[0]: Lane(*files, rate, delay) for files in (ends, ends[::-1])}
    with suppress(OSError):  # until one of the devices is removed
        while True:
            waits = [wait for lane in lanes.values() if (wait := lane.deliver()) is not None]
            for source in select.select(list(lanes), [], [], min(waits, default=None))[0]:
                lanes[source].take()
