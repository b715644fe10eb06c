"""What a run ended with, to the bit; times and memory aside."""

import json
from pathlib import Path
from typing import Any

import torch

from dgcnn_ws.engine.folder.checkpoint import load_checkpoint

TIMES = ("seconds", "clouds_per_second", "peak_memory_bytes", "memory_bytes")


def outcome(folder: Path) -> dict[str, Any]:
    """Return what must not differ: weights, place, metrics and results of a finished run."""
    found: dict[str, Any] = {"leftovers": [path.name for path in folder.glob(".*")]}
    for name in ("last.pt", "best.pt"):
        content = load_checkpoint(folder / name)
        found[name] = {key: value for key, value in content.items() if key != "config"}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found["metrics"] = [json.loads(line) for line in lines]
    found["results"] = json.loads((folder / "results.json").read_text())
    return found


def differs(one: Any, other: Any, where: str = "") -> str | None:
    """Return the first place at which two outcomes differ in anything but times and memory."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)
        return None if same else where
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in one.keys() | other.keys() if key not in TIMES]
        if missing := [key for key in keys if key not in one or key not in other]:
            return f"{where}.{missing[0]}"
        return next((place for key in keys if (place := differs(one[key], other[key], f"{where}.{key}"))), None)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return next((place for i, (a, b) in pairs if (place := differs(a, b, f"{where}[{i}]"))), None)
    return None if one == other and type(one) is type(other) else where
