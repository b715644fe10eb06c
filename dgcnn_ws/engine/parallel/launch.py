"""Start the processes of a run, or join those that torchrun or srun started; and let one of them speak for all."""

import atexit
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from dgcnn_ws.engine.parallel.processes import ALONE, STARTER, Agreed, Processes, is_child, is_first, started
from dgcnn_ws.errors import InputError

PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h
PATIENCE = timedelta(minutes=30)  # of a process that waits for the others
GRACE = 120.0  # seconds, on a busy machine too, in which the first process may say why another one ended


def launch(device: torch.device, devices: int, nodes: int) -> tuple[torch.device, Processes]:
    """Return this process's device, and it among `devices` on each of `nodes` machines, once all are connected.

    Where neither torchrun nor srun started them, the first on a machine starts the others with its own command line.

    Raises InputError where a machine has too few GPUs, one of several is named, or they cannot connect.
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
        try:
            _connect(device, rank, devices, count)
        except dist.DistNetworkError as error:
            reason = str(error).partition("\n")[0]
            raise InputError(f"the {count} processes of this run cannot connect: {reason}") from error
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


def _connect(device: torch.device, rank: int, devices: int, count: int) -> None:
    """Join the process group, after starting the other processes of this machine where nobody else does."""
    store = None
    if not dist.is_torchelastic_launched():  # which has a store of its own
        by_srun = started() is not None
        default = _slurm_address() if by_srun else ("127.0.0.1", 0)  # port 0: any that is free
        address = os.environ.get("MASTER_ADDR", default[0])
        port = int(os.environ.get("MASTER_PORT", default[1]))
        if is_child():
            _die_with(int(os.environ[STARTER]))
        first = None
        if rank == 0:
            store = first = TCPStore(address, port, count, True, PATIENCE, wait_for_workers=False)
            port = first.port
        if not by_srun and not is_child():
            _start_others(devices, address, port)
        store = first or TCPStore(address, port, count, False, PATIENCE)
    on_gpu = device.type == "cuda"
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        timeout=PATIENCE,
        store=store,
        rank=rank,
        world_size=count,
        device_id=device if on_gpu else None,
    )
    if on_gpu:
        atexit.register(dist.destroy_process_group)


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
    return first, 15000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 10000


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
