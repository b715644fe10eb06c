"""Several processes that train one network together: who starts them, what each does, how they agree.

Each takes its share of every batch and of every split that is scored; all take the same steps with the same weights.
The first one alone writes files and speaks.
"""

import ctypes
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

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
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dgcnn_ws.errors import InputError

T = TypeVar("T")
PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h
# Whether buffers are made equal before each forward pass: torch 2.13's name for it, and the one before.
BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


class Agreed(InputError):
    """An error of one process that all have raised together."""


class Processes:
    """This process among those that train one network.

    Args:
        rank: this one's number, from 0.
        count: how many there are; more than one have a process group.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        # Agreements do not wait for what a GPU still has to do.
        on_gpu = count > 1 and dist.get_backend() != "gloo"
        self.control = dist.new_group(backend="gloo") if on_gpu else None

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch: Tensor, micro_batch: int) -> Tensor:
        """Return this process's part of a batch (B, ...): (B / count, ...), of each row of micro-batches its own.

        So what all processes see at the same time lies side by side in the batch: it is what one process would see
        in a micro-batch `count` times as large.
        """
        return batch.unflatten(0, (-1, self.count, micro_batch))[:, self.rank].flatten(0, 1)

    def turns(self, items: Iterable[T]) -> Iterator[T]:
        """Return this process's items, every `count`-th: each item is one process's."""
        return islice(items, self.rank, None, self.count)

    def total(self, tensor: Tensor) -> Tensor:
        """Replace `tensor` by its sum over all processes, and return it."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def take_from_first(self, model: nn.Module) -> None:
        """Replace parameters and buffers by those of the first process."""
        if self.count > 1:
            for tensor in (*model.parameters(), *model.buffers()):
                dist.broadcast(tensor.detach(), 0)

    def largest(self, *numbers: int) -> tuple[int, ...]:
        """Return, in every process, the largest that any of them gave in each place."""
        if self.count == 1:
            return numbers
        values = torch.tensor(numbers)
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.control)
        return tuple(values.tolist())

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise an InputError or OSError of one process's block in all of them, when all have left it.

        Within the block a process that can fail alone must not make the others wait for it.
        """
        if self.count == 1:
            yield
            return
        problem = None
        try:
            yield
        except (InputError, OSError) as error:
            problem = error
        self._agree(problem)

    def in_step(
        self, batches: Iterator[T], flags: Callable[[], tuple[int, ...]]
    ) -> Iterator[tuple[T, tuple[int, ...]]]:
        """Yield each batch with what all processes agree on beside it: the largest of each of `flags()`.

        Raises InputError in every process where one cannot read its batch.
        """
        while True:
            batch, problem = None, None
            try:
                batch = next(batches, None)
            except (InputError, OSError) as error:
                if self.count == 1:
                    raise
                problem = error
            agreed = self._agree(problem, *flags())
            if batch is None:
                return
            yield batch, agreed

    def _agree(self, problem: Exception | None, *numbers: int) -> tuple[int, ...]:
        failed, *agreed = self.largest(int(problem is not None), *numbers)
        if failed:
            problems: list[str | None] = [None] * self.count
            dist.all_gather_object(problems, None if problem is None else _sentence(problem), group=self.control)
            raise Agreed(next(filter(None, problems))) from problem
        return tuple(agreed)


ALONE = Processes()


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename or 'writing'}: {error.strerror or error}."
    return str(error)


# --- starting ---


def started() -> tuple[int, int] | None:
    """Return how many processes a machine, and on how many machines, torchrun or srun started; None for neither."""
    if dist.is_torchelastic_launched():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    if tasks == 1 or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    nodes = int(os.environ.get("SLURM_NNODES", "1"))
    return tasks // nodes, nodes


def check_started(devices: int, nodes: int) -> None:
    """Raise InputError where torchrun or srun started another number of processes, or nobody says where they are."""
    found = started()
    if found is not None and found != (devices, nodes):
        raise InputError(
            f"--devices {devices} --nodes {nodes} was asked for, but {found[0]} processes on each of {found[1]} "
            "machines were started. Leave both flags out, or start as many."
        )
    if found is None and nodes > 1 and not {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"} <= os.environ.keys():
        raise InputError(
            f"--nodes {nodes} needs torchrun or srun on each machine, or MASTER_ADDR, MASTER_PORT and NODE_RANK in "
            "its environment."
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
