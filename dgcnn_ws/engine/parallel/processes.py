"""Several processes that train one network together: how many there are, what each does, how they agree.

Each takes its share of every batch and of every split that is scored; all take the same steps with the same weights.
The first one alone writes files and speaks.
"""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.norm import add_up

T = TypeVar("T")
STARTER = "DGCNN_WS_STARTER"  # the variable in which a process tells those it starts its id
BY_HAND = {"MASTER_ADDR", "MASTER_PORT", "NODE_RANK"}  # told to the first process of each of several machines
NO_STEP = 0xFFFFFFF0  # from here on SLURM numbers what is not one of srun's steps, such as the batch script


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
        self._control = weakref.ref(dist.new_group(backend="gloo")) if on_gpu else None  # torch holds it, until its end

    @property
    def control(self) -> dist.ProcessGroup | None:
        """The group that agreements are made in; None for the one of all."""
        return None if self._control is None else self._control()

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

    def add_gradients(self, model: nn.Module) -> None:
        """Replace the gradients by their sums over all processes, in one collective."""
        if self.count > 1:
            add_up([parameter.grad for parameter in model.parameters() if parameter.grad is not None], self.total)

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
        except BrokenPipeError:  # nobody reads what the first process says: it ends as programs do
            raise
        except (InputError, OSError) as error:
            problem = error
        self._agree(problem)

    def in_step(
        self, batches: Iterator[T], flags: Callable[[], tuple[bool, ...]]
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


# --- how many were started ---


def started() -> tuple[int, int] | None:
    """Return how many processes a machine, and on how many machines, torchrun or srun started; None for neither."""
    if dist.is_torchelastic_launched():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return local, int(os.environ["WORLD_SIZE"]) // local
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    # A batch script, too, sees its job's tasks; but srun alone makes a step of them, with a small number.
    step = int(os.environ.get("SLURM_STEP_ID", NO_STEP))
    if tasks == 1 or step >= NO_STEP or os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive"):
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
    if found is not None or devices * nodes == 1:
        return
    if "LOCAL_RANK" in os.environ and STARTER not in os.environ:
        raise InputError("LOCAL_RANK is set as if another program had started this process. Unset it, or use torchrun.")
    if nodes == 1:
        return
    if not os.environ.keys() >= BY_HAND:
        raise InputError(
            f"--nodes {nodes} needs torchrun or srun on each machine, or MASTER_ADDR, MASTER_PORT and NODE_RANK in "
            "its environment."
        )
    for name, end in (("MASTER_PORT", 1 << 16), ("NODE_RANK", nodes)):
        if not (os.environ[name].isdecimal() and int(os.environ[name]) < end):
            raise InputError(f"{name} is {os.environ[name]!r} in the environment, but must be a number below {end}.")


def is_child() -> bool:
    """Whether another process of the run started this one, and waits for it."""
    return started() is None and STARTER in os.environ and int(os.environ.get("LOCAL_RANK", "0")) > 0


def is_first(nodes: int = 1) -> bool:
    """Whether this process is the first of its run, also before they are connected.

    Args:
        nodes: machines, once that is known. Until then each machine's first process counts as one.
    """
    if dist.is_initialized():
        return dist.get_rank() == 0
    if started() is not None:
        return os.environ["RANK" if dist.is_torchelastic_launched() else "SLURM_PROCID"] == "0"
    return not is_child() and (nodes == 1 or int(os.environ["NODE_RANK"]) == 0)
