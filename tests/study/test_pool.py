"""Runs trained by several processes: each by exactly one, and nothing lost however a process ends."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgcnn_ws.engine.folder.claim import claim
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.engine.training import Run
from dgcnn_ws.study import pool
from dgcnn_ws.study.pool import Job, train_all

pytestmark = pytest.mark.usefixtures("blank_pictures")


@pytest.fixture
def recipe(easy_root: Path) -> Recipe:
    small = {"num_points": 32, "k": 5, "emb_dims": 32, "batch_size": 8, "epochs": 2}
    return complete(Recipe(dataset="modelnet10", data_root=easy_root, **small))  # type: ignore[arg-type]


def make_jobs(recipe: Recipe, folder: Path, count: int) -> list[Job]:
    return [Job(replace(recipe, seed=seed), folder / f"seed{seed}") for seed in range(count)]


def last_weights(job: Job) -> dict[str, torch.Tensor]:
    return torch.load(job.folder / "last.pt", weights_only=True)["model"]


def wait_for(path: Path, alive: Callable[[], bool]) -> None:
    while not path.exists():
        assert alive(), f"{path} did not appear"
        time.sleep(0.02)


def test_processes_train_what_one_alone_would(recipe: Recipe, tmp_path: Path) -> None:
    jobs = make_jobs(recipe, tmp_path, 3)
    Run(jobs[0].recipe, tmp_path / "alone", quiet=True).train()
    rival = multiprocessing.get_context("spawn").Process(target=_train_jobs, args=(recipe, tmp_path))
    rival.start()  # the same jobs in a process that `train_all` here knows nothing of
    train_all(jobs, processes=2)
    rival.join()
    assert rival.exitcode == 0
    for job in jobs:
        assert job.finished
        assert len(list(job.folder.glob("events*"))) == 1  # each was trained once
    alone = torch.load(tmp_path / "alone/last.pt", weights_only=True)["model"]
    assert all(torch.equal(alone[name], value) for name, value in last_weights(jobs[0]).items())
    before = [job.folder.stat().st_mtime_ns for job in jobs]
    train_all(jobs, processes=2)  # nothing left to do
    assert before == [job.folder.stat().st_mtime_ns for job in jobs]


def _train_jobs(recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    train_all(make_jobs(recipe, folder, 3), processes=1)


def test_each_run_is_told_a_gpu_that_no_other_has(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "gpus_to_share", lambda device: ["2", "GPU-5"])
    jobs = make_jobs(replace(recipe, epochs=1), tmp_path, 2)
    train_all(jobs, processes=2)
    told = [json.loads((job.folder / "config.json").read_text())["environment"] for job in jobs]
    assert [environment["cuda_visible_devices"] for environment in told] == ["2", "GPU-5"]


def test_a_run_that_fails_is_recorded_and_the_others_go_on(recipe: Recipe, tmp_path: Path) -> None:
    good, bad = make_jobs(recipe, tmp_path, 2)
    bad = replace(bad, recipe=replace(bad.recipe, lr=1e20))
    train_all([bad, good], processes=1)
    assert good.finished and not bad.finished
    assert "loss became" in (bad.failure() or "")


def test_killed_in_the_middle_it_goes_on_to_the_same_bits(recipe: Recipe, tmp_path: Path) -> None:
    (whole,) = make_jobs(replace(recipe, epochs=4), tmp_path / "whole", 1)
    Run(whole.recipe, whole.folder, quiet=True).train()
    (job,) = make_jobs(replace(recipe, epochs=4), tmp_path / "killed", 1)
    process = multiprocessing.get_context("spawn").Process(target=_train_until_the_third_epoch, args=(job,))
    process.start()
    wait_for(tmp_path / "killed/third epoch", process.is_alive)
    process.kill()
    process.join()
    assert not job.finished
    with open(job.folder / "metrics.jsonl", "a") as file:  # as if killed in the middle of a line
        file.write('{"epoch": ')
    (job.folder / ".last.pt.123").write_bytes(b"half")
    train_all([job], processes=1)
    assert json.loads((job.folder / "results.json").read_text())["last_epoch"]["epoch"] == 4
    lines = (job.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4]
    expected = last_weights(whole)
    assert all(torch.equal(expected[name], value) for name, value in last_weights(job).items())


def _train_until_the_third_epoch(job: Job) -> None:
    torch.set_num_threads(1)
    with claim(job.folder):
        run = Run(job.recipe, job.folder, quiet=True)
        step = run.optimizer_step

        def step_or_wait(points: torch.Tensor, targets: torch.Tensor) -> None:
            step(points, targets)
            if run.epoch == 2:
                (job.folder.parent / "third epoch").touch()
                signal.pause()

        run.optimizer_step = step_or_wait  # type: ignore[method-assign]
        run.train()


def test_asked_to_stop_it_saves_and_says_what_is_left(recipe: Recipe, tmp_path: Path) -> None:
    jobs = make_jobs(replace(recipe, epochs=500), tmp_path, 2)

    def stop() -> None:
        wait_for(jobs[0].folder / "last.pt", lambda: not over.is_set())
        os.kill(os.getpid(), signal.SIGTERM)

    over, stopper = threading.Event(), threading.Thread(target=stop)
    stopper.start()
    try:
        with pytest.raises(Interrupted, match="2 of 2 runs to go; the same command goes on") as caught:
            train_all(jobs, processes=1)
    finally:
        over.set()
        stopper.join()
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert torch.load(jobs[0].folder / "last.pt", weights_only=True)["progress"]["step"] > 0
    assert not (jobs[0].folder / "failure.json").exists()
