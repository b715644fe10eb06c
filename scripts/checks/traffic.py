"""What processes send each other: collectives counted as they are issued, and their bytes."""

from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Collectives(TorchDispatchMode):
    """Count the collectives issued within the block: `calls` and `bytes`, by name.

    A collective's bytes are those of the tensor that all processes have afterwards, or that each gives to the sum:
    what a process sends and receives for it is up to twice that, depending on the algorithm. Backward passes count
    where they run in the same thread: on the CPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, _, name = func.name().partition("::")
        if namespace == "c10d":
            self.calls[name] += 1
            tensors = tree_leaves(args[0])  # the result of every collective comes first
            self.bytes[name] += sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))
        return func(*args, **(kwargs or {}))
