"""The end of a run: the test set, read once, and what is written of the whole."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from dgcnn_ws.datasets import LabelledClouds
from dgcnn_ws.engine.folder.checkpoint import write_json
from dgcnn_ws.engine.parallel.processes import Processes
from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.engine.scoring.evaluation import EVAL_BATCH, Scores, evaluate_by_batch_statistics, uses_batch_statistics
from dgcnn_ws.engine.state import Progress
from dgcnn_ws.engine.task import TASKS
from dgcnn_ws.pictures import plots


def score_test_set(
    recipe: Recipe, model: nn.Module, dataset: LabelledClouds, device: torch.device, processes: Processes
) -> dict[str, Scores]:
    """Return the scores of `model` by what they are called in results.json after the checkpoint's name.

    Where batch norms failed, scores by the batch's own statistics say whether training did, or its running statistics.
    """
    task = TASKS[recipe.task]
    scores = {"": task.evaluate(model, dataset, EVAL_BATCH, device, processes=processes, keep_answers=True)}
    # A head that saw more than the micro-batch could not be scored in micro-batches as it was trained.
    if recipe.task == "classify" and recipe.head_norm != "bn_whole" and uses_batch_statistics(model):
        size = (recipe.micro_batch or recipe.batch_size) * (processes.count if recipe.sync_bn else 1)
        by_batch = evaluate_by_batch_statistics(model, dataset, size, device, processes=processes)
        scores["_by_batch_statistics"] = by_batch
    return scores


def write_results(
    folder: Path, results: dict[str, Any], progress: Progress, recipe: Recipe, answer_names: list[str]
) -> None:
    """Add a run's last line and its costs to `results`, and write them and the pictures."""
    results |= {
        "last_epoch": progress.history[-1],
        "seconds": progress.seconds,
        "clouds_per_second": progress.step * recipe.batch_size / progress.seconds,
        "peak_memory_bytes": progress.peak_memory_bytes,
        "memory_bytes": progress.memory_bytes,
    }
    plots.draw_training(progress.history, folder / "training.png")
    if "best" in results:
        plots.draw_confusion(
            results["best"]["confusion"], answer_names, folder / "confusion.png", TASKS[recipe.task].unit
        )
    write_json(folder / "results.json", results)
