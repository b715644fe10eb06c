"""The temperature against a search over all of them, and calibration error against what is right by construction."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dgcnn_ws.engine.scoring.calibration import calibration_error, fit_temperature, reliability, tempered


def drawn(count: int, temperature: float) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn with the probabilities that the logits have at a temperature."""
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(count, 10, generator=generator)
    labels = torch.multinomial((logits / temperature).softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    logits, labels = drawn(20_000, temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.05)
    assert fit_temperature(logits.log_softmax(1), labels) == pytest.approx(found, rel=1e-5)  # a constant a cloud
    assert calibration_error(tempered(logits, found), labels) < 0.015
    assert (tempered(logits, found).argmax(1) == logits.argmax(1)).all()


def test_no_other_temperature_is_better() -> None:
    logits, labels = drawn(80, 1.5)
    certain = 1 - 1 / 82
    target = torch.full((80, 10), (1 - certain) / 9).scatter_(1, labels[:, None], certain)

    def loss(temperature: float) -> float:
        return F.cross_entropy(logits.double() / temperature, target.double()).item()

    best = loss(fit_temperature(logits, labels))
    assert all(best <= loss(0.05 * 1.05**step) + 1e-12 for step in range(120))


def test_few_clouds_all_right_are_no_reason_to_be_sure() -> None:
    logits = 2 * torch.eye(10)
    confidence = tempered(logits, fit_temperature(logits, torch.arange(10))).max(1).values
    assert 0.8 < confidence.mean() < 0.95
    for labels in (torch.arange(10), torch.arange(10).roll(1)):  # all wrong too: a number, within bounds
        assert 0.05 <= fit_temperature(1e4 * logits, labels) <= 20


def test_calibration_error_of_clouds_that_are_surer_than_right() -> None:
    """Ten clouds at 90 % of which five are right, ten at 50 % of which five are: (10 * 0.4 + 10 * 0) / 20."""
    sure, unsure = [0.9, 0.1], [0.5 + 1e-6, 0.5 - 1e-6]
    probabilities = torch.tensor([sure] * 10 + [unsure] * 10, dtype=torch.float64)
    labels = torch.tensor([0, 1] * 10)
    assert calibration_error(probabilities, labels) == pytest.approx(0.2, abs=1e-5)
    bins = reliability(probabilities, labels)
    assert sum(bins["count"]) == 20 and bins["count"][13] == bins["count"][7] == 10
    assert bins["confidence"][13] == pytest.approx(0.9) and bins["accuracy"][13] == pytest.approx(0.5)
