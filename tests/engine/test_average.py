"""An average of weights is the mean of the weights there were, is what a run keeps, and goes on to the same bits."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgcnn_ws.engine.average import Average
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.engine.training import Run


@pytest.fixture
def recipe(easy_root: Path) -> Recipe:
    small = Recipe(dataset="modelnet10", data_root=easy_root, num_points=32, k=5, emb_dims=32, batch_size=8, epochs=3)
    return complete(replace(small, norm="ws_bcn", average_weights=1.5, device="cpu"))


def test_the_mean_of_all_steps_then_of_the_last_ones() -> None:
    model = torch.nn.Linear(2, 2).double()
    average = Average(model, 4)
    seen = []
    for step in range(60):
        torch.manual_seed(step)
        with torch.no_grad():
            model.weight.normal_()
        seen.append(model.weight.detach().clone())
        average.update(model, step)
        if step < 4:
            torch.testing.assert_close(average.model.weight, torch.stack(seen).mean(0))
    shares = torch.tensor([0.25 * 0.75**age for age in range(60)], dtype=torch.float64)
    expected = sum(share * weight for share, weight in zip(shares, reversed(seen), strict=True))
    torch.testing.assert_close(average.model.weight, expected, rtol=0, atol=1e-6)


def test_a_run_scores_and_saves_the_average_and_trains_as_without(recipe: Recipe, tmp_path: Path) -> None:
    run = Run(replace(recipe, average_weights=1e6), tmp_path / "average", quiet=True)
    seen: dict[str, list[torch.Tensor]] = {name: [] for name, _ in run.model.named_parameters()}
    step = run.arithmetic.step

    def step_and_keep(optimizer: torch.optim.Optimizer) -> None:
        step(optimizer)
        for name, parameter in run.model.named_parameters():
            seen[name].append(parameter.detach().clone())

    run.arithmetic.step = step_and_keep  # type: ignore[method-assign]
    run.train()
    plain = Run(replace(recipe, average_weights=0.0), tmp_path / "plain", quiet=True)
    plain.train()
    kept, alone = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("average", "plain"))
    assert "trained" not in alone
    assert all(torch.equal(kept["trained"][name], value) for name, value in alone["model"].items())
    for name, values in seen.items():
        assert len(values) == 12
        torch.testing.assert_close(kept["model"][name], torch.stack(values).mean(0), rtol=1e-4, atol=1e-6)
    assert run.progress.history[-1]["loss"] != plain.progress.history[-1]["loss"]


def test_resumes_to_the_same_bits(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Run(recipe, tmp_path / "whole", quiet=True).train()
    run = Run(recipe, tmp_path / "parts", quiet=True)
    step = run.optimizer_step

    def step_and_signal(points: torch.Tensor, targets: torch.Tensor) -> None:
        step(points, targets)
        if run.progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "optimizer_step", step_and_signal)
    with pytest.raises(Interrupted):
        run.train()
    parts = Run(recipe, tmp_path / "parts", resume=True, quiet=True).train()
    one, other = (torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "parts"))
    for part in ("model", "trained"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])
    assert parts["last"] == whole["last"] and parts["best"] == whole["best"]


@pytest.mark.parametrize("head_norm", ["est", "bn"])
def test_statistics_are_those_of_the_average(recipe: Recipe, tmp_path: Path, head_norm: str) -> None:
    run = Run(complete(replace(recipe, norm="gn", head_norm=head_norm, dropout=0.0)), tmp_path / "run", quiet=True)
    run.train()
    average = run.state.result
    seen: list[torch.Tensor] = []
    norm = average.head.pooled_norm if head_norm == "est" else average.head.layers[1]
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    order = torch.randperm(len(run.train_set), generator=torch.Generator().manual_seed(0))
    rows = order[:32] if head_norm == "bn" else order  # of batch norm an incomplete batch of 32 is left out
    clouds = run.train_set.points[rows].transpose(1, 2)
    with torch.no_grad():
        average(clouds)
    torch.testing.assert_close(norm.running_mean, seen[0].mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, seen[0].var(0, correction=head_norm == "bn"), rtol=1e-3, atol=1e-6)
