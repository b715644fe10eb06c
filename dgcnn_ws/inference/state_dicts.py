"""The state dict in what trainers save: wrapped in a dictionary, under the name that a wrapper gave the network."""

from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from dgcnn_ws.errors import InputError

# Where trainers put a state dict beside epoch, optimizer and arguments; `state_dict` is Lightning's too.
WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "module")

# What trainers save beside it, a run's arguments and its best score: plain data, which reading does not execute.
_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS = (
    Namespace,
    np.dtype,
    *{type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_)},
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)


def find_state_dict(content: Any) -> dict[str, Tensor]:
    """Return the state dict in what a file held, its Parameters as plain tensors.

    Raises InputError, in one sentence, where there is none, or where there are several.
    """
    for _ in range(4):  # wrapped by a trainer that others wrap
        if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
            raise InputError("it holds no state dict, but something else.")
        if any(isinstance(value, Tensor) and "." in name for name, value in content.items()):
            break
        inside = [name for name in WRAPPERS if isinstance(content.get(name), Mapping) and content[name]]
        if len(inside) > 1:
            raise InputError(f"it holds several state dicts, {' and '.join(inside)}: save the right one by itself.")
        if not inside:
            break
        content = content[inside[0]]
    return {name: value.detach() if isinstance(value, Tensor) else value for name, value in content.items()}


def without_prefix(state: dict[str, Tensor], first: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the part of a state dict that is one network's, under the network's own names, and the names of the rest.

    DataParallel puts `module.` in front of them, torch.compile `_orig_mod.`, Lightning the attribute's name, often
    `model.`; a loss or a metric that has tensors lies beside them.

    Args:
        first: a name that every such network has, by which the prefix is found.

    Raises InputError where the network is there twice (an average of it, say).
    """
    prefixes = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    if len(prefixes) > 1:
        words = " and ".join(repr(prefix) for prefix in sorted(prefixes))
        raise InputError(f"it holds the network more than once, under {words}: save the right one by itself.")
    prefix = prefixes[0] if prefixes else ""
    inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    return inside, [name for name in state if not name.startswith(prefix)]
