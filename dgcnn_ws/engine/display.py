"""What a run shows while it trains: a bar, a line an epoch, and TensorBoard."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from dgcnn_ws.engine.board import Board, open_board
from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.engine.scoring.evaluation import Scores
from dgcnn_ws.engine.state import State

PAUSE = 0.5  # seconds between two readings of the loss, each of which waits for the device


class Display:
    """The bar and the board of one process: neither, where it is not the first.

    Args:
        epochs: of the whole run.
        quiet: write no lines.
    """

    def __init__(self, bar: "tqdm[Any]", board: Board | None, epochs: int, quiet: bool) -> None:
        self.bar, self.board, self.epochs, self.quiet = bar, board, epochs, quiet
        self.shown = time.perf_counter()

    def begin_epoch(self, epoch: int) -> None:
        """Say which epoch, from 1, is trained."""
        self.bar.set_description(f"epoch {epoch}/{self.epochs}")
        self.shown = time.perf_counter()

    def is_due(self) -> bool:
        """Whether the loss has not been shown for a while."""
        return time.perf_counter() - self.shown > PAUSE

    def loss(self, loss: float, lr: float) -> None:
        self.shown = time.perf_counter()
        self.bar.set_postfix(loss=f"{loss:.3f}", lr=f"{lr:.2g}")

    def clouds(self, count: int) -> None:
        """Move the bar on."""
        self.bar.update(count)

    def samples(self, stored: Tensor, seen: Tensor, labels: Tensor, class_names: list[str]) -> None:
        """Show clouds (B, N, 3) as they are stored, and as the network sees them."""
        if self.board is not None:
            self.board.add_samples(stored, seen, labels, class_names)

    def scores(self, line: dict[str, Any], scores: Scores, best: bool, answer_names: list[str], unit: str) -> None:
        """Put a scored epoch on the board, before its checkpoint: a run killed between the two shows it again."""
        if self.board is not None:
            self.board.add_metrics(line)
            if best or line["epoch"] == self.epochs:
                self.board.add_confusion(scores.confusion, answer_names, unit, line["epoch"])

    def line(self, line: dict[str, Any], scores: Scores, best: bool) -> None:
        """Say how an epoch went."""
        if not self.quiet:
            self.bar.write(
                f"epoch {line['epoch']:3d}  train loss {line['train_loss']:.3f} OA {line['train_accuracy']:.1%}  "
                f"{line['selected_on']} {scores} of {scores.num_clouds} clouds{'  (best)' if best else ''}"
            )


@contextmanager
def open_display(folder: Path, recipe: Recipe, state: State, first: bool, quiet: bool) -> Iterator[Display]:
    """Open what a run shows for the block.

    Args:
        first: whether this is the run's first process, which alone has a board.
        quiet: neither bar nor lines.
    """
    assert recipe.epochs is not None
    total, done = (steps * recipe.batch_size for steps in (recipe.epochs * state.steps_per_epoch, state.progress.step))
    with (
        open_board(folder, state.epoch) if first else nullcontext() as board,
        tqdm(total=total, initial=done, unit=" clouds", disable=quiet or None, dynamic_ncols=True) as bar,
    ):
        yield Display(bar, board, recipe.epochs, quiet)
