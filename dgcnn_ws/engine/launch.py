"""Start the processes of a run, or join those that torchrun or srun started; and let one of them speak for all."""

import ctypes
import inspect
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only
from torch.nn.parallel import DistributedDataParallel

from dgcnn_ws.engine.processes import ALONE, Agreed, Processes, started
from dgcnn_ws.errors import InputError

PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h
# Whether buffers are made equal before each forward pass: torch 2.13's name for it, and the one before.
BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


def launch(
    device: torch.device, devices: int, nodes: int, precision: Precision | None = None
) -> tuple[Fabric, Processes]:
    """Return Fabric and this process among `devices` on each of `nodes` machines, once all of them are connected.

    Where neither torchrun nor srun started them, the first on a machine starts the others with its own command line.

    Raises InputError where a machine has too few GPUs, or one of several is named.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    count = devices * nodes
    if count == 1:
        chosen: Any = 1 if device.index is None else [device.index]
        return _fabric(device, chosen, 1, LightningEnvironment(), precision), ALONE
    if device.index is not None:
        raise InputError(f"--device {device} is one device, and --devices {devices} --nodes {nodes} are {count}.")
    if device.type == "cuda" and torch.cuda.device_count() < devices:
        raise InputError(f"--devices {devices} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices.")
    if dist.is_torchelastic_launched():
        environment: ClusterEnvironment = TorchElasticEnvironment()
    elif started():
        os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(devices))  # Fabric insists on it
        environment = SLURMEnvironment()
    else:
        environment = LightningEnvironment()
        if _is_child():
            _die_with_parent()
    fabric = _fabric(device, devices, nodes, environment, precision)
    fabric.launch()
    return fabric, Processes(fabric.global_rank, count)


def _fabric(
    device: torch.device, devices: Any, nodes: int, environment: ClusterEnvironment, precision: Precision | None
) -> Fabric:
    # Running estimates are kept equal by `one_update`, and of batch norm's the first process's count.
    together = isinstance(devices, int) and devices * nodes > 1
    buffers: dict[str, Any] = {BUFFERS: False}
    strategy: Any = DDPStrategy(**buffers) if together else "auto"
    plugins: list[Any] = [environment] if precision is None else [environment, precision]
    return Fabric(accelerator=device.type, strategy=strategy, devices=devices, num_nodes=nodes, plugins=plugins)


def _is_child() -> bool:
    """Whether another process of the run started this one, and waits for it."""
    return started() is None and int(os.environ.get("LOCAL_RANK", "0")) > 0


def _die_with_parent() -> None:
    """End this process when the one that started it ends, however that happens (on Linux)."""
    if (prctl := getattr(ctypes.CDLL(None), "prctl", None)) is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# --- ending ---


def is_first() -> bool:
    """Whether this process is the first of its run, also before they are connected."""
    return getattr(rank_zero_only, "rank", 0) == 0


@contextmanager
def one_voice(*stops: type[BaseException]) -> Iterator[None]:
    """Leave it to the run's first process to say how the run ended; the others end in silence.

    Args:
        stops: exceptions that all processes raise together.
    """
    agreed: tuple[type[BaseException], ...] = (Agreed, *stops)
    try:
        yield
    except RuntimeError as error:
        if not _lost_another(error):
            raise
        _be_silent()
        raise InputError(
            "another process of this run ended early; if it could, it said above why. The last checkpoint is kept: "
            "go on with --resume."
        ) from error
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
    if _is_child() and dist.is_initialized():
        sys.exit(0)  # otherwise Fabric kills the first process before it has spoken
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115


def _lost_another(error: RuntimeError) -> bool:
    return dist.is_initialized() and (isinstance(error, dist.DistError) or "gloo" in str(error))
