"""What TensorBoard shows of a run: its scores, the confusion on the selection split, and what the network is shown."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from dgcnn_ws.pictures.contact_sheet import samples_figure
from dgcnn_ws.pictures.plots import confusion_figure

SAMPLES = 6  # clouds that are drawn
MOST_NUMBERED = 16  # classes: writing the counts of 40 takes seconds, and this is drawn again and again


class Board(SummaryWriter):
    """A run's TensorBoard events.

    Args:
        folder: where they go.
        epochs_done: whole epochs trained so far. What an interrupted run wrote of later ones is hidden, since those
            are trained, and written, again.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        super().__init__(str(folder), purge_step=epochs_done + 1 if epochs_done else 0)  # the samples are step 0

    def add_metrics(self, metrics: dict[str, Any]) -> None:
        """Add the fractional numbers of an epoch's line, under their names."""
        for name, value in metrics.items():
            if isinstance(value, float):
                self.add_scalar(name, value, metrics["epoch"])

    def add_confusion(self, confusion: list[list[int]], names: list[str], unit: str, epoch: int) -> None:
        numbers = len(names) <= MOST_NUMBERED
        self.add_image("confusion", pixels(confusion_figure(confusion, names, unit, numbers)), epoch, dataformats="HWC")

    def add_samples(self, stored: Tensor, seen: Tensor, labels: Tensor, class_names: list[str]) -> None:
        """Add some clouds as they are stored and as the network sees them: (B, num_points, C) both, labels (B or more).

        The first of each class come first.
        """
        order = first_of_each(labels[: len(stored)].tolist())[:SAMPLES]
        names = [class_names[int(labels[i])] for i in order]
        before, after = (points[order, :, :3].cpu().numpy() for points in (stored, seen))
        figure = samples_figure(before, after, names)
        self.add_image("samples", pixels(figure), 0, dataformats="HWC")


@contextmanager
def open_board(folder: Path, epochs_done: int) -> Iterator[Board]:
    """Open a run's board for the block. Raises OSError, which names the folder, where the disk is full."""
    hook = threading.excepthook
    # TensorBoard writes in a thread of its own, and raises what that meets here, but not before it has shown it.
    threading.excepthook = lambda met: None if issubclass(met.exc_type, OSError) else hook(met)
    try:
        with Board(folder, epochs_done) as board:
            yield board
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            error.filename = error.filename or str(folder)
        raise
    finally:
        threading.excepthook = hook


def first_of_each(labels: list[int]) -> list[int]:
    """Return the places of all labels, the first of every label in front."""
    first = [labels.index(label) for label in dict.fromkeys(labels)]
    return first + [i for i in range(len(labels)) if i not in first]


def pixels(figure: Figure) -> np.ndarray:
    """Return a figure as an image (height, width, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
