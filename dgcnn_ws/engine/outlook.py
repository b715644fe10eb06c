"""What a finished run's record says of it: whether it beat a classical method, and whether more training would help."""

import math
from statistics import mean
from typing import Any

ENOUGH_STEPS = 1500  # below which networks here were never done, whatever the data set
AHEAD = 0.05  # of accuracy on training clouds, augmented and with dropout, over that on others: it has learned them
POOR = 0.8


def beside_baseline(accuracy: float, baseline: float, count: int, split: str) -> str:
    """Return a sentence on a network's accuracy and the classical baseline's, both of the same `count` clouds."""
    error = math.sqrt(max(accuracy * (1 - accuracy), 0.25 / count) / count)
    scores = f"on {split} {accuracy:.1%}, where the classical baseline has {baseline:.1%}"
    if abs(accuracy - baseline) <= error:
        return f"tied: {scores}, no difference that {count} clouds can show"
    return scores if accuracy > baseline else f"below the baseline: {scores}"


def state_of_training(history: list[dict[str, Any]], steps: int) -> str:
    """Return a sentence on how far training had come, by the lines of metrics.jsonl.

    Args:
        history: a line an epoch, with `train_accuracy`, `overall_accuracy` and `num_clouds`.
        steps: optimizer steps of the whole run.
    """
    fifth = math.ceil(len(history) / 5)
    scores = [line["overall_accuracy"] for line in history]
    late, before = (mean(part or scores) for part in (scores[-fifth:], scores[-2 * fifth : -fifth]))
    trained, seen = history[-1]["train_accuracy"], history[-1]["overall_accuracy"]
    error = math.sqrt(max(seen * (1 - seen), 0.25 / history[-1]["num_clouds"]) / history[-1]["num_clouds"])
    if steps < ENOUGH_STEPS:
        few = f"fewer steps than it needs: {steps}, where {ENOUGH_STEPS:,} are usual"
        return f"{few}: more --epochs, or a smaller --batch-size"
    if trained < POOR and trained <= seen + AHEAD:
        return f"undertrained: of its own training clouds it names {trained:.1%}: more --epochs, or a larger --lr"
    if late - before > error:
        return "still improving when it ended: more --epochs"
    return "training had levelled off"


def of_run(history: list[dict[str, Any]], best_epoch: int, steps: int, baseline: float | None) -> dict[str, Any]:
    """Return what results.json says of a run: `training`, and where a baseline was asked, it and `beside_baseline`.

    Args:
        history: the lines of metrics.jsonl, of which that of `best_epoch` belongs to best.pt.
        steps: optimizer steps of the whole run.
        baseline: a classical method's accuracy on the same clouds.
    """
    says: dict[str, Any] = {"training": state_of_training(history, steps)}
    if baseline is not None:
        best = next(line for line in history if line["epoch"] == best_epoch)
        place = "test" if best["selected_on"] == "test" else "validation"
        says["baseline"] = baseline
        says["beside_baseline"] = beside_baseline(best["overall_accuracy"], baseline, best["num_clouds"], place)
    return says
