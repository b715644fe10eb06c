"""What a run says of itself at its end."""

from typing import Any

import pytest

from dgcnn_ws.engine.outlook import ENOUGH_STEPS, beside_baseline, of_run, state_of_training


def history(scores: list[float], trained: float, count: int = 200) -> list[dict[str, Any]]:
    return [
        {"epoch": i, "overall_accuracy": score, "train_accuracy": trained, "num_clouds": count, "selected_on": "val"}
        for i, score in enumerate(scores, 1)
    ]


@pytest.mark.parametrize(
    "scores, trained, steps, words",
    [
        ([0.5, 0.6, 0.7, 0.7, 0.7, 0.7], 0.95, ENOUGH_STEPS - 1, "fewer steps than it needs"),
        ([0.3, 0.4, 0.5, 0.5, 0.5, 0.5], 0.5, ENOUGH_STEPS, "undertrained: of its own training clouds it names 50.0%"),
        ([0.3, 0.4, 0.5, 0.6, 0.7], 0.9, ENOUGH_STEPS, "still improving"),
        ([0.3, 0.8, 0.8, 0.8, 0.8], 0.95, ENOUGH_STEPS, "levelled off"),
        ([0.8], 0.95, ENOUGH_STEPS, "levelled off"),
    ],
)
def test_state_of_training(scores: list[float], trained: float, steps: int, words: str) -> None:
    assert words in state_of_training(history(scores, trained), steps)


def test_beside_the_baseline() -> None:
    assert beside_baseline(0.8, 0.79, 80, "validation").startswith("tied: on validation 80.0%, where the classical")
    assert beside_baseline(0.8, 0.6, 80, "test") == "on test 80.0%, where the classical baseline has 60.0%"
    assert beside_baseline(0.5, 0.7, 80, "test").startswith("below the baseline")
    assert beside_baseline(1.0, 1.0, 2, "validation").startswith("tied")


def test_of_a_run() -> None:
    lines = history([0.4, 0.8, 0.7], 0.9)
    says = of_run(lines, 2, ENOUGH_STEPS, 0.5)
    assert says["baseline"] == 0.5 and says["beside_baseline"].startswith("on validation 80.0%")
    assert of_run(lines, 2, ENOUGH_STEPS, None).keys() == {"training"}
