"""Start the processes of a run, or join those that torchrun or srun started; and let one of them speak for all."""

import ctypes
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
from torch import nn

from dgcnn_ws.engine.processes import ALONE, STARTER, Agreed, Processes, is_child, is_first, started
from dgcnn_ws.errors import InputError

PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h


class Alike(DDPStrategy):
    """Processes with the same network each, which is not wrapped: `Processes` keeps gradients and buffers alike.

    torch's wrapper would lay the gradients out anew after each process's first step, and where three or more add up,
    the layout decides the order: a run that was stopped would not go on to the same bits.
    """

    def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
        return module


def launch(
    device: torch.device, devices: int, nodes: int, precision: Precision | None = None
) -> tuple[Fabric, Processes]:
    """Return Fabric and this process among `devices` on each of `nodes` machines, once all of them are connected.

    Where neither torchrun nor srun started them, the first on a machine starts the others with its own command line.

    Raises InputError where a machine has too few GPUs, one of several is named, or they cannot connect.
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
        if is_child():
            _die_with(int(os.environ[STARTER]))
        else:
            os.environ[STARTER] = str(os.getpid())
    fabric = _fabric(device, devices, nodes, environment, precision)
    try:
        fabric.launch()
    except dist.DistNetworkError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"the {count} processes of this run cannot connect: {reason}") from error
    return fabric, Processes(fabric.global_rank, count)


def _fabric(
    device: torch.device, devices: Any, nodes: int, environment: ClusterEnvironment, precision: Precision | None
) -> Fabric:
    together = isinstance(devices, int) and devices * nodes > 1
    strategy: Any = Alike() if together else "auto"
    plugins: list[Any] = [environment] if precision is None else [environment, precision]
    return Fabric(accelerator=device.type, strategy=strategy, devices=devices, num_nodes=nodes, plugins=plugins)


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
    if is_child() and dist.is_initialized():
        sys.exit(0)  # otherwise Fabric kills the first process before it has spoken
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
