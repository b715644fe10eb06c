"""Start the processes of a run, or join those that torchrun or srun started; and let one of them speak for all."""

import atexit
import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.nn.functional  # its defaults keep the process group that there is when it is first imported
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _set_pg_timeout

from dgcnn_ws import __version__
from dgcnn_ws.engine.parallel.processes import ALONE, STARTER, Agreed, Processes, is_child, is_first, started
from dgcnn_ws.engine.parallel.pulse import BEAT, Pulse
from dgcnn_ws.errors import InputError

PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h
JOIN = timedelta(seconds=40)  # for processes that were started together to find each other
GRACE_TO_JOIN = 5.0  # seconds in which torch may say itself that they do not
BY_HAND = timedelta(minutes=10)  # for those that somebody starts on one machine after the other
PATIENCE = timedelta(minutes=30)  # of a process that waits for another one that lives
_pulse: Pulse | None = None  # of this process among several
GRACE = 120.0  # seconds, on a busy machine too, in which the first process may say why another one ended


def launch(device: torch.device, devices: int, nodes: int) -> tuple[torch.device, Processes]:
    """Return this process's device, and it among `devices` on each of `nodes` machines, once all are connected.

    Where neither torchrun nor srun started them, the first on a machine starts the others with its own command line.

    Raises InputError where a machine has too few GPUs, one of several is named, or they cannot connect within a minute
    (ten where they are started by hand).
    """
    count = devices * nodes
    if count == 1:
        return _own(device, device.index or 0), ALONE
    if device.index is not None:
        raise InputError(f"--device {device} is one device, and --devices {devices} --nodes {nodes} are {count}.")
    if device.type == "cuda" and torch.cuda.device_count() < devices:
        raise InputError(f"--devices {devices} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices.")
    rank, local_rank = _place(devices)
    device = _own(device, local_rank)
    if not dist.is_initialized():
        if "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, _cores() // devices))
        _connect(device, rank, devices, nodes)
    return device, Processes(rank, count)


def _own(device: torch.device, index: int) -> torch.device:
    if device.type != "cuda":
        return device
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


def _place(devices: int) -> tuple[int, int]:
    """Return this process's number among all of the run, and among those on its machine."""
    told = os.environ
    if dist.is_torchelastic_launched():
        return int(told["RANK"]), int(told["LOCAL_RANK"])
    if started():
        return int(told["SLURM_PROCID"]), int(told["SLURM_LOCALID"])
    local_rank = int(told.get("LOCAL_RANK", "0"))
    return int(told.get("NODE_RANK", "0")) * devices + local_rank, local_rank


def _connect(device: torch.device, rank: int, devices: int, nodes: int) -> None:
    """Join the process group, after starting the other processes of this machine where nobody else does."""
    count = devices * nodes
    if dist.is_torchelastic_launched():  # which has a store of its own
        address, port, own = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), False
    else:
        default = _slurm_address() if started() is not None else ("127.0.0.1", 0)  # port 0: any that is free
        address = os.environ.get("MASTER_ADDR", default[0])
        port = int(os.environ.get("MASTER_PORT", default[1]))
        own = rank == 0
        if is_child():
            _die_with(int(os.environ[STARTER]))
    patience = BY_HAND if started() is None and nodes > 1 else JOIN
    place = f"the {count} processes of this run cannot connect to {address}:{port} and to each other"
    way_out = "Another port is set by MASTER_PORT, another network device by GLOO_SOCKET_IFNAME."
    # Not all of torch's waiting ends: for a name that nobody knows, or at a port where another program listens.
    late = threading.Timer(patience.total_seconds() + GRACE_TO_JOIN, _give_up, [f"{place}. {way_out}"])
    late.daemon = True
    late.start()
    try:
        store = None
        if own:
            store = TCPStore(address, port, count, True, patience, wait_for_workers=False)
            port = store.port
        if started() is None and not is_child():
            _start_others(devices, address, port)
        store = store or TCPStore(address, port, count, False, patience)
        hosts = _meet(store, rank, count, patience)
        on_gpu = device.type == "cuda"
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            timeout=JOIN,
            store=PrefixStore(_attempt(), store),
            rank=rank,
            world_size=count,
            device_id=device if on_gpu else None,
        )
        _set_pg_timeout(PATIENCE)
    except (dist.DistError, RuntimeError) as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        reason = str(error).partition("\n")[0]
        raise Agreed(f"{place}: {reason} {way_out}") from error
    finally:
        late.cancel()
    atexit.register(_disconnect)  # signs of life, registered later, end before
    global _pulse
    own_store = TCPStore(address, port, None, False, timedelta(seconds=BEAT))
    _pulse = Pulse(PrefixStore(_attempt(), own_store), rank, hosts)


def _disconnect() -> None:
    """End gloo's threads before Python ends: one that drops a collective's tensor at that moment aborts the process.

    They end with their group, so nothing may hold that. It waits for collectives that nobody has waited for: there are
    none.
    """
    if dist.is_initialized():  # a caller may have ended it
        dist.destroy_process_group()


def _give_up(sentence: str) -> None:
    if is_first():
        print(f"error: {sentence}", file=sys.stderr, flush=True)
    os._exit(2)


def _meet(store: TCPStore, rank: int, count: int, patience: timedelta) -> list[str]:
    """Return every process's machine. Raises Agreed where some do not come, or are of another version."""
    here = [socket.gethostname(), f"dgcnn_ws {__version__} ({_digest()}) with torch {torch.__version__}"]
    keys = [f"{_attempt()}/here/{other}" for other in range(count)]
    store.set(keys[rank], json.dumps(here))
    try:
        store.wait(keys, patience)
    except dist.DistError as error:
        absent = ", ".join(str(other) for other, key in enumerate(keys) if not store.check([key]))
        raise Agreed(
            f"of the {count} processes of this run number {absent}, counted from 0, did not come within "
            f"{patience.total_seconds():.0f} s: is its machine up, and does it reach this one by its name?"
        ) from error
    told = [json.loads(value) for value in store.multi_get(keys)]
    for other, (host, version) in enumerate(told):
        if version != told[0][1]:
            raise Agreed(
                f"process {other} of this run, on {host}, is {version}, but the first, on {told[0][0]}, {told[0][1]}. "
                "Let all machines have the same."
            )
    return [host for host, _ in told]


def _digest() -> str:
    """Return a number that is another one where the program's text is."""
    files = sorted(Path(__file__).parents[2].rglob("*.py"))
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in files)):08x}"


def _attempt() -> str:
    """Return a name for this start of the run, so that no leftover of another is taken for one of its own."""
    parts = (
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
        "SLURM_RESTART_COUNT",
        "TORCHELASTIC_RUN_ID",
        "TORCHELASTIC_RESTART_COUNT",
    )
    return "-".join(os.environ.get(part, "") for part in parts)


def _start_others(devices: int, address: str, port: int) -> None:
    """Start a process for each further device of this machine, with the command line that started this one."""
    told = os.environ | {STARTER: str(os.getpid()), "MASTER_ADDR": address, "MASTER_PORT": str(port)}
    command = [sys.executable, *sys.orig_argv[1:]]
    for local_rank in range(1, devices):
        process = subprocess.Popen(command, env=told | {"LOCAL_RANK": str(local_rank)})
        threading.Thread(target=_watch, args=(process,), daemon=True).start()


def _watch(process: "subprocess.Popen[bytes]") -> None:
    """End this process where another has failed and this one waits for it in vain, as one may within NCCL."""
    if process.wait() != 0:
        time.sleep(GRACE)
        os.kill(os.getpid(), signal.SIGKILL)


def _slurm_address() -> tuple[str, int]:
    """Return the machine of srun's first process, and a port that all can compute."""
    nodes = os.environ.get("SLURM_NODELIST", "127.0.0.1")  # such as gpu[03-05,09],login1
    first = re.sub(r"^([^,\[]*)(?:\[([^],-]*)[^]]*\])?.*", r"\1\2", nodes)
    number = int(os.environ.get("SLURM_JOB_ID", "0")) + 1000 * int(os.environ.get("SLURM_STEP_ID", "0"))
    return first, 15000 + number % 10000


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _die_with(parent: int) -> None:
    """End this process when its parent ends, however that happens, or has ended already (on Linux)."""
    if (prctl := getattr(ctypes.CDLL(None), "prctl", None)) is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


# --- ending ---


@contextmanager
def missing() -> Iterator[None]:
    """Say in a sentence what the collectives of the block raise where another process has ended.

    Raises Agreed: all that are left raise it.
    """
    try:
        yield
    except RuntimeError as error:
        if not (dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error))):
            raise
        raise Agreed(
            "another process of this run ended early; if it could, it said above why. The last checkpoint is kept: "
            "go on with --resume."
        ) from error


@contextmanager
def watched(record: Callable[[str], None]) -> Iterator[None]:
    """End this process where another one is lost without a word while the block lasts: see `Pulse`.

    Args:
        record: is told a sentence first, if this process is the one that speaks.
    """

    def end(sentence: str) -> None:  # whoever waits in a collective cannot be woken
        if sentence:
            record(sentence)
            print(f"\nerror: {sentence}", file=sys.stderr, flush=True)
        os._exit(2)

    with nullcontext() if _pulse is None else _pulse.watching(end):
        yield


@contextmanager
def one_voice(*stops: type[BaseException]) -> Iterator[None]:
    """Leave it to the run's first process to say how the run ended; the others end in silence.

    Args:
        stops: exceptions that all processes raise together.
    """
    agreed: tuple[type[BaseException], ...] = (Agreed, *stops)
    try:
        yield
    except agreed:
        _be_silent()
        raise
    except (InputError, OSError):
        if not dist.is_initialized():  # bad settings are bad in all processes
            _be_silent()
        raise


def _be_silent() -> None:
    if is_first():
        return
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
