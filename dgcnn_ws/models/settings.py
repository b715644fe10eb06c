"""What a network's weights do not say of it: k, the norm and its groups lie in the state dict, and are compared."""

import json
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from dgcnn_ws.nn.norm import BatchChannelNorm

KEY = "_extra_state"  # torch's name for what `get_extra_state` returns


def graph_setting(graph: str, in_channels: int) -> dict[str, str]:
    """Return what the first graph is built on as a setting to remember, where a point has more than coordinates."""
    return {"graph": graph} if in_channels > 3 else {}


class WithSettings(nn.Module):
    """A network whose state dict also holds its settings, and that takes no weights of another setting.

    Weights of other groups, another k or norm would fit in name and shape, and give another function without a word.
    `load_state_dict` raises torch's RuntimeError for them, and warns where a state dict (an older one, or one of
    another program) does not say what it belongs to, or was left without the key `_extra_state` on purpose.

    A subclass calls `remember` at the end of its `__init__`. The settings are a tensor of whole numbers (their
    JSON's characters), so that what copies, averages or writes state dicts meets tensors alone.
    """

    settings: dict[str, int | str]

    def remember(self, **settings: int | str) -> None:
        """Keep the settings that decide what the weights mean."""
        grouped = any(isinstance(module, nn.GroupNorm | BatchChannelNorm) for module in self.modules())
        if not grouped:  # no norm reads them
            settings.pop("groups", None)
        self.settings = settings

    def get_extra_state(self) -> Tensor:
        """Return the settings as torch's `state_dict` keeps them."""
        return torch.tensor(list(json.dumps(self.settings).encode()), dtype=torch.int32, device="cpu")

    def set_extra_state(self, state: Any) -> None:
        """Nothing is set: the settings are the constructor's. `load_state_dict` compares them."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        key = prefix + KEY
        if key in missing_keys:  # written before state dicts had it, or by another program
            missing_keys.remove(key)
            warnings.warn(
                f"this state dict does not say which settings it was trained with; it is taken to be of {self._words()}"
                ". dgcnn_ws.load reads a checkpoint with its settings.",
                stacklevel=2,
            )
        else:
            error_msgs += differences(self.settings, state_dict[key])

    def _words(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.settings.items())


def differences(settings: dict[str, int | str], found: Any) -> list[str]:
    """Return a sentence for each setting in which `found`, out of a state dict, differs from a network's."""
    try:
        stored = json.loads(bytes(found.round().to(torch.uint8).tolist()))
        stored = {name: stored[name] for name in settings if name in stored}
    except (AttributeError, RuntimeError, TypeError, ValueError, RecursionError):
        return ["the settings in this state dict are damaged."]
    return [
        f"these weights are of a network with {name} {stored[name]!r}, and this one has {value!r}. Make it with "
        f"that setting, let dgcnn_ws.load make it, or take {KEY!r} out of the state dict."
        for name, value in settings.items()
        if stored.get(name, value) != value
    ]
