"""`dgcnn_ws.load`: a checkpoint as a network that can be used."""

import json
from pathlib import Path
from typing import Any

from dgcnn_ws.engine.folder.checkpoint import (
    checkpoint_in,
    load_checkpoint,
    read_json,
    restore_frame,
    restore_model,
    restore_temperature,
)
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.finished import Classifier, Segmenter

NOT_KEPT = ("model", "trained", "optimizer", "scaler", "progress")  # what only training goes on with


def load(path: str | Path) -> Classifier | Segmenter:
    """Return the network of a checkpoint with its weights and settings, in evaluation mode, on the CPU.

        model = dgcnn_ws.load("runs/mine/best.pt")
        model.predict("chair.off").name

    Args:
        path: best.pt or last.pt of a run, an imported checkpoint, a run's folder (its best.pt), or a folder that
            `save_pretrained` wrote. Nothing that it holds is executed.

    Raises InputError where it is missing, damaged or something else.
    """
    path = checkpoint_in(Path(path))
    content = load_checkpoint(path)
    network, recipe, _ = restore_model(path, content)
    about = {name: value for name, value in content.items() if name not in NOT_KEPT}
    about["temperature"] = restore_temperature(path, content)
    if "results" not in about and path.name in ("best.pt", "last.pt"):
        about["results"] = results_of(path)
    try:
        json.dumps(about)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: what it says beside its weights is not plain data.") from error
    kind = Segmenter if recipe.task == "segment" else Classifier
    return kind(network, recipe, restore_frame(path, content), about)


def results_of(path: Path) -> dict[str, Any] | None:
    """Return the test scores that a run wrote of its checkpoint at `path`; None where there are none, or damaged."""
    try:
        content = read_json(path.parent / "results.json")
    except InputError:  # the network is as good without
        return None
    return content.get(path.stem) if isinstance(content, dict) else None
