"""What processes send each other: collectives counted as they are issued, and their bytes."""

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest.mock import patch

import torch.distributed as dist
from torch import Tensor
from torch.utils._pytree import tree_leaves

# Those whose first argument is the result, or that have none.
NAMES = (
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all", "all_to_all_single",
    "barrier", "broadcast", "broadcast_object_list", "reduce", "reduce_scatter", "reduce_scatter_tensor", "scatter",
)  # fmt: skip


class Collectives:
    """Count the collectives issued within the block by calls of `dist.NAME`, in any thread: `calls`, `bytes`, by name.

    A collective's bytes are those of the tensor that all processes have afterwards, or that each gives to the sum:
    what a process sends and receives for it is up to twice that, depending on the algorithm. Objects count no bytes.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.patches = ExitStack()

    def __enter__(self) -> "Collectives":
        for name in NAMES:
            self.patches.enter_context(patch.object(dist, name, partial(self._count, name, getattr(dist, name))))
        return self

    def __exit__(self, *_: object) -> None:
        self.patches.close()

    def _count(self, name: str, collective: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.calls[name] += 1
        result = args[:1] or tuple(kwargs.values())[:1]
        self.bytes[name] += sum(tensor.nbytes for tensor in tree_leaves(result) if isinstance(tensor, Tensor))
        return collective(*args, **kwargs)
