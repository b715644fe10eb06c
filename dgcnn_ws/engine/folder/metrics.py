"""A run's `metrics.jsonl`: a line of JSON an epoch."""

import json
from pathlib import Path
from typing import Any

from dgcnn_ws.errors import InputError


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the epochs' lines; a last one that was cut off while it was written is left out.

    Raises InputError where another line is damaged.
    """
    whole, _, torn = path.read_bytes().rpartition(b"\n")
    lines = whole.split(b"\n") if whole else []
    metrics = []
    for number, line in enumerate([*lines, torn] if torn else lines, start=1):
        try:
            content = json.loads(line)
            if not isinstance(content, dict) or not isinstance(content.get("epoch"), int):
                raise ValueError("no epoch")
        except (ValueError, RecursionError) as error:
            if number == len(lines) + 1:
                break
            raise InputError(f"{path} is damaged: line {number} is not the JSON of an epoch.") from error
        metrics.append(content)
    return metrics
