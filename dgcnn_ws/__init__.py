"""DGCNN with Weight Standardization and Group Normalization, for point clouds at any batch size."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dgcnn_ws.engine.entry import train as train
    from dgcnn_ws.engine.recipe import Recipe as Recipe
    from dgcnn_ws.inference.finished import Classifier, Segmenter
    from dgcnn_ws.inference.load import load
    from dgcnn_ws.models import DGCNN, DGCNNSeg, DGCNNTNet
    from dgcnn_ws.nn import (
        EdgeConv,
        WSConv1d,
        WSConv2d,
        WSConv3d,
        WSLinear,
        convert_to_ws_gn,
        fuse,
        standardize_weight,
    )

__version__ = "0.1.0"

__all__ = [
    "DGCNN",
    "Classifier",
    "DGCNNSeg",
    "DGCNNTNet",
    "EdgeConv",
    "Segmenter",
    "WSConv1d",
    "WSConv2d",
    "WSConv3d",
    "WSLinear",
    "convert_to_ws_gn",
    "fuse",
    "load",
    "standardize_weight",
]

_FLOORS = {  # of the names that are not in dgcnn_ws.nn
    "dgcnn_ws.models": ("DGCNN", "DGCNNSeg", "DGCNNTNet"),
    "dgcnn_ws.inference.finished": ("Classifier", "Segmenter"),
    "dgcnn_ws.inference.load": ("load",),
    "dgcnn_ws.engine.recipe": ("Recipe",),
    "dgcnn_ws.engine.entry": ("train",),
}
_TRAINING = ("Recipe", "train")  # not of `import *`: they need the libraries of the commands


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: torch takes seconds, and the command line answers without it."""
    if name not in (*__all__, *_TRAINING):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    floor = next((floor for floor, names in _FLOORS.items() if name in names), "dgcnn_ws.nn")
    globals()[name] = value = getattr(import_module(floor), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_TRAINING})
