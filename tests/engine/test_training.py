"""Training runs: they learn, stop and resume to the same bits, and refuse what cannot work."""

import gc
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest
import torch

from dgcnn_ws.datasets import PointClouds
from dgcnn_ws.engine import training
from dgcnn_ws.engine.folder import run_folder
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.scoring.evaluation import Scores
from dgcnn_ws.engine.state import Progress
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.engine.training import Run, class_weights
from dgcnn_ws.errors import InputError

pytestmark = pytest.mark.usefixtures("blank_pictures")

BATCH, STEPS = 8, 4  # 37 clouds remain for training: 4 batches an epoch


@pytest.fixture
def recipe(easy_root: Path) -> Recipe:
    return complete(
        Recipe(
            dataset="modelnet10",
            data_root=easy_root,
            num_points=32,
            k=5,
            emb_dims=32,
            batch_size=BATCH,
            epochs=2,
            optimizer="adam",
            lr=1e-3,
        )
    )


@pytest.mark.parametrize("norm", ["ws_gn", "bn", "ws_bcn"])
def test_a_step_leaves_no_tensor_to_the_garbage_collector(norm: str, recipe: Recipe, tmp_path: Path) -> None:
    run = Run(complete(replace(recipe, norm=norm, micro_batch=4)), tmp_path / "run", quiet=True)
    batch = next(run.loader.epoch(0))
    run.optimizer_step(*batch)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        run.optimizer_step(*batch)
        gc.collect()
        assert not [found for found in gc.garbage if isinstance(found, torch.Tensor)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def test_other_points_of_a_cloud_at_each_step(recipe: Recipe, tmp_path: Path) -> None:
    drawn = Run(replace(recipe, redraw=True), tmp_path / "run", quiet=True)
    assert (drawn.train_set.num_points, drawn.select_set.num_points) == (48, 32)  # all that are stored, and the first
    points, _ = next(drawn.loader.epoch(0))
    one, other = (drawn.augment(points, step) for step in (0, 1))
    assert one.shape == (BATCH, 32, 3) and torch.equal(drawn.augment(points, 0), one)
    assert not torch.equal(other.sort(1).values, one.sort(1).values)
    drawn.train()
    streamed = Run(replace(recipe, redraw=True, stream=True), tmp_path / "streamed", quiet=True)
    streamed.train()
    assert_same_bits(weights(tmp_path / "run"), weights(tmp_path / "streamed"))


def test_each_class_counts_alike_where_weights_are_balanced(recipe: Recipe) -> None:
    labels = torch.tensor([0] * 9 + [1])
    clouds = PointClouds(torch.zeros(10, 4, 3), labels, ["many", "few", "none"])
    assert class_weights(recipe, clouds, torch.device("cpu")) is None
    found = class_weights(replace(recipe, class_weights="balanced"), clouds, torch.device("cpu"))
    assert found is not None and found.isfinite().all()
    assert found[labels].sum() == pytest.approx(10) and found[0] * 9 == pytest.approx(float(found[1]))
    one = PointClouds(torch.zeros(2, 4, 3), torch.zeros(2), ["pallet"])
    with pytest.raises(InputError, match="one class alone, 'pallet'"):
        class_weights(recipe, one, torch.device("cpu"))


def test_balanced_weights_choose_by_mean_class_accuracy(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float] = []
    monkeypatch.setattr(
        Progress, "end_epoch", lambda self, line, score: told.append(score) or self.history.append(line)
    )
    run = Run(replace(recipe, class_weights="balanced"), tmp_path / "run", quiet=True)
    scores = SimpleNamespace(loss=1.0, overall_accuracy=0.9, criterion=0.9, mean_class_accuracy=0.4, num_clouds=4)
    scores.metrics = lambda: {"loss": 1.0}
    monkeypatch.setattr(run.task, "evaluate", lambda *_, **__: scores)
    monkeypatch.setattr(run.folder, "save", lambda state: None)
    run.progress.step = len(run.loader)
    run.progress.seconds = 1.0
    run.score_epoch(SimpleNamespace(scores=lambda *_: None, line=lambda *_: None))
    assert told == [0.4]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "last.pt", weights_only=True)["model"]


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize("norm", ["ws_gn", "bn"])
def test_learns_an_easy_set_and_reports_it(recipe: Recipe, tmp_path: Path, norm: str) -> None:
    # Of the preset's 64 groups each would hold one channel: then a norm takes away what tells these clouds apart.
    recipe = replace(recipe, norm=norm, head_norm=None, groups=16, epochs=16, dropout=0.0, lr=5e-3)
    recipe = complete(recipe)
    results = Run(recipe, tmp_path / "run", quiet=True).train()
    assert results["last"]["overall_accuracy"] >= 0.9
    assert json.loads((tmp_path / "run/results.json").read_text()) == results
    assert results["selected_on"] == "val"
    for which in ("best", "last"):
        assert results[which].keys() >= {
            "overall_accuracy",
            "mean_class_accuracy",
            "num_clouds",
            "per_class",
            "confusion",
        }
        assert results[which]["num_clouds"] == 11 == sum(map(sum, results[which]["confusion"]))
    assert results["seconds"] > 0 and results["clouds_per_second"] > 0 and results["peak_memory_bytes"] > 1e6
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == list(range(1, 17))
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert {line["num_clouds"] for line in lines} == {3}
    best = max(lines, key=lambda line: (line["overall_accuracy"], line["epoch"]))  # of three clouds: the last
    assert best["overall_accuracy"] == 1
    assert results["best_epoch"] == best["epoch"]
    made = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith("events")}
    expected = {"config.json", "metrics.jsonl", "results.json", "best.pt", "last.pt", "training.png", "confusion.png"}
    assert made == expected


@pytest.mark.parametrize(("stop_after", "signum"), [(1, signal.SIGINT), (STEPS, signal.SIGTERM), (6, signal.SIGINT)])
@pytest.mark.parametrize(("norm", "head_norm"), [("ws_bcn", "est"), ("bn", "bn"), ("ws_gn", "bn_whole")])
def test_resumes_to_the_same_bits(
    recipe: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int,
    signum: int,
    norm: str,
    head_norm: Any,
) -> None:
    recipe = complete(replace(recipe, norm=norm, head_norm=head_norm, micro_batch=4))
    whole = Run(recipe, tmp_path / "whole", quiet=True).train()

    run = Run(recipe, tmp_path / "parts", quiet=True)
    step = run.optimizer_step

    def step_and_signal(points: torch.Tensor, labels: torch.Tensor) -> None:
        step(points, labels)
        if run.progress.step + 1 == stop_after:
            os.kill(os.getpid(), signum)

    monkeypatch.setattr(run, "optimizer_step", step_and_signal)
    with pytest.raises(Interrupted, match="--resume") as stop:
        run.train()
    assert stop.value.exit_code == 128 + signum
    parts = Run(recipe, tmp_path / "parts", resume=True, quiet=True).train()
    assert_same_bits(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    for folder in ("whole", "parts"):
        assert len((tmp_path / folder / "metrics.jsonl").read_text().splitlines()) == 2
    assert parts["last"] == whole["last"] and parts["best"] == whole["best"]


@pytest.mark.parametrize("epoch", [0, 1])
def test_stopped_between_two_epochs_nothing_is_counted_twice(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    Run(recipe, tmp_path / "whole", quiet=True).train()
    run = Run(recipe, tmp_path / "parts", quiet=True)
    train = run.model.train

    def signal_and_train(mode: bool = True) -> torch.nn.Module:
        if mode and run.epoch == epoch:  # the beginning of an epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return train(mode)

    monkeypatch.setattr(run.model, "train", signal_and_train)
    with pytest.raises(Interrupted):
        run.train()
    assert run.progress.step == epoch * STEPS and len(run.progress.history) == epoch
    Run(recipe, tmp_path / "parts", resume=True, quiet=True).train()
    assert_same_bits(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    whole, parts = ((tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "parts"))
    for one, other in zip(map(json.loads, whole), map(json.loads, parts), strict=True):
        assert {name for name in one if one[name] != other[name]} <= {
            "seconds",
            "clouds_per_second",
            "peak_memory_bytes",
        }


def test_runs_that_once_noted_an_epoch_without_steps_are_put_right() -> None:
    def line(epoch: int, loss: float) -> dict[str, Any]:
        return {"epoch": epoch, "train_loss": loss}

    progress = Progress(best_accuracy=0.5, history=[line(0, 0.0), line(1, 0.9), line(2, 0.8), line(2, 0.0)])
    progress.put_right()
    assert progress.history == [line(1, 0.9), line(2, 0.8)] and progress.scored == 2
    assert progress.best_accuracy == -1.0  # an untrained network's
    assert Progress().scored == 0


def test_where_few_clouds_choose_the_last_epoch_that_is_as_good_is_taken() -> None:
    def chosen(count: int, scores: list[float]) -> int:
        progress = Progress()
        for epoch, score in enumerate(scores, 1):
            progress.end_epoch({"epoch": epoch, "loss": 1.0, "num_clouds": count}, score)
        return progress.best_epoch

    assert chosen(80, [0.5, 0.775, 0.7, 0.75, 0.72]) == 4  # 0.775 ± 0.047
    assert chosen(80, [0.8, 0.6, 0.5]) == 1
    assert chosen(1000, [0.5, 0.775, 0.7, 0.774]) == 2
    assert chosen(3, [1.0, 2 / 3]) == 1  # of three clouds one is lost


def test_of_equal_scores_the_lower_loss_is_better_also_in_runs_of_before() -> None:
    def line(epoch: int, loss: float) -> dict[str, Any]:
        return {"epoch": epoch, "loss": loss}

    progress = Progress()
    scored = [progress.end_epoch(line(epoch, loss), 0.5) for epoch, loss in ((1, 0.9), (2, 0.8), (3, 0.85))]
    assert scored == [True, True, False]
    assert progress.best_epoch == 2 and progress.end_epoch(line(4, 2.0), 0.6) and progress.best_epoch == 4
    # What a run of before kept: the first of equal ones, and no loss beside it but in its history.
    before = Progress(best_accuracy=0.5, best_epoch=1, history=[line(1, 0.9), line(2, 0.8)])
    assert not before.end_epoch(line(3, 0.95), 0.5) and before.end_epoch(line(4, 0.85), 0.5)


class Killed(BaseException):
    """Ends a run where it stands, as SIGKILL does; scripts/checks/inject_faults sends the signal itself."""


@pytest.mark.parametrize("stream_when", ["always", "after the stop", "before the stop"])
def test_streamed_clouds_train_to_the_same_bits(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream_when: str
) -> None:
    """Where the clouds lie is not part of what is computed: a run may even go on with the other."""
    recipe = replace(recipe, epochs=1)
    streamed = replace(recipe, stream=True, stream_buffer=1)
    first = recipe if stream_when == "after the stop" else streamed
    whole = Run(recipe, tmp_path / "whole", quiet=True).train()
    run = Run(first, tmp_path / "parts", quiet=True)
    step = run.optimizer_step

    def step_and_signal(points: torch.Tensor, labels: torch.Tensor) -> None:
        step(points, labels)
        if run.progress.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "optimizer_step", step_and_signal)
    with pytest.raises(Interrupted):
        run.train()
    second = recipe if stream_when == "before the stop" else streamed
    parts = Run(second, tmp_path / "parts", resume=True, quiet=True).train()
    assert_same_bits(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert parts["last"] == whole["last"] and parts["best"] == whole["best"]


def test_a_killed_run_starts_over_without_a_checkpoint(recipe: Recipe, tmp_path: Path) -> None:
    Run(recipe, tmp_path / "whole", quiet=True).train()
    Run(recipe, tmp_path / "killed", quiet=True).train()
    killed = tmp_path / "killed"
    for name in ("last.pt", "best.pt", "results.json"):
        (killed / name).unlink()
    (killed / ".last.pt.node.123").write_bytes(b"half")
    Run(recipe, killed, resume=True, quiet=True).train()
    assert_same_bits(weights(tmp_path / "whole"), weights(killed))
    assert len((killed / "metrics.jsonl").read_text().splitlines()) == 2
    assert not list(killed.glob(".*"))


@pytest.mark.parametrize("write", ["last.pt", "best.pt", "metrics.jsonl"])
def test_killed_between_two_writes_of_an_epochs_end(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    monkeypatch.setattr(Run, "finish", dict)
    better = iter([0.25, 0.5, 0.5])  # both epochs are the best so far, also when one is trained again

    def evaluate(*args: object, **kwargs: object) -> Scores:
        return Scores(next(better), 0.0, 0.0, 3, {}, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])

    run = Run(recipe, tmp_path / "run", quiet=True)
    monkeypatch.setattr(type(run.task), "evaluate", evaluate)
    save_checkpoint, write_lines = run_folder.save_checkpoint, run_folder.write_lines

    def killing(function: Callable[[Path, Any], None]) -> Callable[[Path, Any], None]:
        def call(path: Path, content: Any) -> None:
            if path.name == write and run.epoch == 2:
                raise Killed
            function(path, content)

        return call

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(run_folder, "save_checkpoint", killing(save_checkpoint))
        patch.setattr(run_folder, "write_lines", killing(write_lines))
        run.train()
    before = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in before] == [1]
    resumed = Run(recipe, tmp_path / "run", resume=True, quiet=True)
    assert resumed.epoch == (1 if write == "last.pt" else 2)
    resumed.train()
    best, last = (torch.load(tmp_path / f"run/{name}.pt", weights_only=True) for name in ("best", "last"))
    assert best["epoch"] == last["epoch"] == last["progress"]["best_epoch"] == 2
    assert_same_bits(best["model"], last["model"])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2] and lines == last["progress"]["history"]


def test_refuses_to_go_on_without_the_best_checkpoint(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "finish", dict)
    run = Run(recipe, tmp_path / "run", quiet=True)
    run.train()
    best, last = tmp_path / "run/best.pt", tmp_path / "run/last.pt"
    content = torch.load(last, weights_only=True)
    content["progress"]["best_epoch"] = 1
    torch.save(content, last)
    other = best.read_bytes()
    for damage in (lambda: best.unlink(), lambda: best.write_bytes(other[:-9]), lambda: torch.save(content, best)):
        damage()
        with pytest.raises(InputError, match="epoch 1 should lie there"):
            Run(recipe, tmp_path / "run", resume=True, quiet=True).train()
    torch.save(content | {"epoch": 1}, best)
    Run(recipe, tmp_path / "run", resume=True, quiet=True).train()


def test_metrics_are_put_right_from_the_last_checkpoint(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Run, "finish", dict)
    Run(recipe, tmp_path / "run", quiet=True).train()
    lines, last = tmp_path / "run/metrics.jsonl", tmp_path / "run/last.pt"
    written = lines.read_text()
    lines.write_text(written[:-40] + "\0\0")
    Run(recipe, tmp_path / "run", resume=True, quiet=True).train()
    assert lines.read_text() == written
    content = torch.load(last, weights_only=True)
    del content["progress"]["history"]  # as checkpoints were before
    torch.save(content, last)
    Run(recipe, tmp_path / "run", resume=True, quiet=True).train()
    assert lines.read_text() == written


def test_refuses_settings_that_its_checkpoint_was_not_trained_with(recipe: Recipe, tmp_path: Path) -> None:
    Run(recipe, tmp_path / "run", quiet=True).train()
    (tmp_path / "run/results.json").unlink()
    config = tmp_path / "run/config.json"
    config.write_text(config.read_text().replace('"seed": 0', '"seed": 4'))
    with pytest.raises(InputError, match=r"last\.pt was trained with --seed 0, not 4"):
        Run(replace(recipe, seed=4), tmp_path / "run", resume=True)


def test_weights_that_are_no_numbers_do_not_replace_the_last_good_ones(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(recipe, tmp_path / "run", quiet=True)
    step = run.optimizer_step

    def last_step(points: torch.Tensor, labels: torch.Tensor) -> None:
        step(points, labels)
        if run.progress.step + 1 == STEPS + 1:  # its loss was one
            with torch.no_grad():
                next(run.model.parameters()).fill_(float("nan"))
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "optimizer_step", last_step)
    with pytest.raises(InputError, match="weights became nan"):
        run.train()
    assert torch.load(tmp_path / "run/last.pt", weights_only=True)["progress"]["step"] == STEPS


@pytest.mark.parametrize(
    ("norm", "head_norm", "same"),
    [
        ("ws_gn", None, True),
        ("ws_bcn", None, True),
        ("bn", None, False),
        ("ws_gn", "bn", False),
        ("ws_gn", "bn_whole", True),
        ("ws_bcn", "bn_whole", True),
        ("bn", "bn_whole", False),
    ],
)
def test_the_micro_batch_changes_batch_norm_alone(
    recipe: Recipe, tmp_path: Path, norm: str, head_norm: Any, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The dropout of a head that sees the batch whole is drawn once, too.
    dropout = 0.5 if head_norm == "bn_whole" else 0.0
    recipe = complete(replace(recipe, norm=norm, head_norm=head_norm, dropout=dropout, epochs=1))
    runs = []
    for size in (1 if same else 2, BATCH):
        run = Run(replace(recipe, micro_batch=size), tmp_path / str(size), quiet=True)
        run.model.double()
        run.train_set.points = run.train_set.points.double()
        points, labels = next(run.loader.epoch(0))
        # The gradients of one step: an optimizer like Adam would blow rounding up.
        monkeypatch.setattr(run.optimizer, "step", lambda: None)
        monkeypatch.setattr(run.optimizer, "zero_grad", lambda **_: None)
        run.model.train()
        run.optimizer_step(points.double(), labels)
        gradient = torch.cat([p.grad.flatten() for p in run.model.parameters()])
        kept = norm == "ws_bcn" or head_norm == "bn_whole"
        estimates = [b.flatten() for n, b in run.model.named_buffers() if kept and "running" in n]
        runs.append(torch.cat([gradient, *estimates]))
    difference = (runs[0] - runs[1]).norm() / runs[1].norm()
    assert difference < 1e-9 if same else difference > 1e-2


def test_refuses_a_folder_in_use_and_other_settings(recipe: Recipe, tmp_path: Path) -> None:
    Run(recipe, tmp_path / "run", quiet=True).train()
    with pytest.raises(InputError, match="already holds a run"):
        Run(recipe, tmp_path / "run")
    with pytest.raises(InputError, match=r"--lr 0\.001, not 0\.5"):
        Run(replace(recipe, lr=0.5), tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="is finished"):
        Run(recipe, tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="no run in"):
        Run(recipe, tmp_path / "none", resume=True)


def test_refuses_to_go_on_with_other_data(recipe: Recipe, tmp_path: Path) -> None:
    Run(recipe, tmp_path / "run", quiet=True).train()
    (tmp_path / "run/results.json").unlink()
    (tmp_path / "data").mkdir()
    folder = Path(
        shutil.copytree(recipe.data_root / "modelnet10_ply_hdf5_2048", tmp_path / "data/modelnet10_ply_hdf5_2048")
    )
    moved = replace(recipe, data_root=tmp_path / "data")
    Run(moved, tmp_path / "run", resume=True)  # the same data in another place
    with h5py.File(folder / "ply_data_train0.h5", "r+") as file:
        file["data"][0] += 1
    with pytest.raises(InputError, match="started on other data"):
        Run(moved, tmp_path / "run", resume=True)


def test_refuses_a_damaged_place(recipe: Recipe, tmp_path: Path) -> None:
    Run(recipe, tmp_path / "run", quiet=True).train()
    (tmp_path / "run/results.json").unlink()
    content = torch.load(tmp_path / "run/last.pt", weights_only=True)
    del content["optimizer"]
    torch.save(content, tmp_path / "run/last.pt")
    with pytest.raises(InputError, match="cannot be resumed"):
        Run(recipe, tmp_path / "run", resume=True)


def test_a_loss_that_is_no_number_ends_the_run(recipe: Recipe, tmp_path: Path) -> None:
    run = Run(recipe, tmp_path / "run", quiet=True)
    with torch.no_grad():
        run.model.head.layers[-1].weight.fill_(float("inf"))
    with pytest.raises(InputError, match=r"loss became nan.*Lower --lr"):
        run.train()
    assert not (tmp_path / "run/last.pt").exists()


def test_trains_in_bfloat16_on_exact_coordinates(recipe: Recipe, tmp_path: Path) -> None:
    run, seen = Run(replace(recipe, precision="bf16", epochs=1), tmp_path / "run", quiet=True), set()
    run.model.edge_convs[0].register_forward_hook(lambda _, x, out: seen.add((x[0].dtype, out.dtype)))
    results = run.train()
    assert seen == {(torch.float32, torch.bfloat16)}
    assert results["last"]["num_clouds"] == 11
    assert {value.dtype for name, value in weights(tmp_path / "run").items() if "weight" in name} == {torch.float32}


def test_a_batch_larger_than_the_set(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch"):
        Run(replace(recipe, batch_size=64, micro_batch=64), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_selecting_on_test_trains_on_everything_and_says_so(recipe: Recipe, tmp_path: Path) -> None:
    run = Run(replace(recipe, select="test", epochs=1), tmp_path / "run", quiet=True)
    assert len(run.train_set) == 40
    assert run.train()["selected_on"] == "test"


def test_seeds_of_neighbouring_steps_are_unrelated() -> None:
    seeds = {training.seed_of(seed, step, stream) for seed in range(5) for step in range(50) for stream in (1, 2)}
    assert len(seeds) == 500
