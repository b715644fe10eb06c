"""Many runs in one folder, each trained by exactly one process, here or on a machine that shares the folder."""

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import torch
from tqdm import tqdm

from dgcnn_ws.engine.folder.checkpoint import read_json
from dgcnn_ws.engine.folder.claim import TAKEN, claim, is_free, read_failure, record_failure, recording, seen
from dgcnn_ws.engine.machine.allocator import keep_freed_memory
from dgcnn_ws.engine.machine.devices import gpus_to_share
from dgcnn_ws.engine.machine.notices import show_notices
from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.engine.stopping import Interrupted, stop_requests
from dgcnn_ws.engine.training import Run

POLL = 0.5  # seconds


@dataclass(frozen=True)
class Job:
    """A run to train in `folder`; `test` says whether the test set is read at its end."""

    recipe: Recipe
    folder: Path
    test: bool = True

    @property
    def finished(self) -> bool:
        return (self.folder / "results.json").exists()

    def epochs_done(self) -> int:
        """Return the epochs trained so far, by whichever process."""
        if self.finished:
            return self.recipe.epochs or 0
        try:
            lines = (self.folder / "metrics.jsonl").read_bytes().count(b"\n")
        except FileNotFoundError:
            return 0
        return min(lines, self.recipe.epochs or 0)

    def failure(self) -> str | None:
        """Return why the run failed the last time it was tried, or None."""
        return None if self.finished else read_failure(self.folder)


def _train(job: Job, threads: int, gpu: str | None, lost: dict[Path, tuple[int, float]]) -> None:
    """Train one run, in a process of its own that sees one GPU alone; its exit code says how that went."""
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # before anything asks CUDA
    seen.update(lost)
    torch.set_num_threads(threads)
    keep_freed_memory()
    show_notices()
    try:
        with claim(job.folder) as mine:
            if not mine:
                sys.exit(TAKEN)
            if not job.finished:
                resume = (job.folder / "config.json").exists()
                with recording(job.folder):
                    Run(job.recipe, job.folder, resume, quiet=True, test=job.test).train()
    except Interrupted as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # recorded
        sys.exit(1)


def train_all(jobs: list[Job], processes: int) -> None:
    """Train every run that is not finished, `processes` at a time; resume those that were interrupted.

    Where there are several GPUs each run has the one that the fewest of the others have. A run that another process
    holds is waited for. One that fails leaves `failure.json` in its folder, and the others
    go on; started again, it is tried again.

    Raises Interrupted, when asked to stop, after the runs have saved their places.
    """
    threads = max(1, torch.get_num_threads() // processes)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once, not once a run
    waiting = [job for job in jobs if not job.finished]
    running: dict[ForkServerProcess, Job] = {}
    gpus: dict[ForkServerProcess, str] = {}
    all_gpus = gpus_to_share(jobs[0].recipe.device) if jobs else []
    total = sum(job.recipe.epochs or 0 for job in jobs)
    done = sum(job.epochs_done() for job in jobs)
    with (
        stop_requests() as requests,
        tqdm(total=total, initial=done, unit=" epochs", disable=None) as bar,
        _ending(running),
    ):
        while (waiting or running) and not requests:
            for process in [process for process in running if not process.is_alive()]:
                job = running.pop(process)
                gpus.pop(process, None)
                if process.exitcode == TAKEN:
                    waiting.append(job)
                else:
                    _report(job, process.exitcode or 0, jobs, bar)
            for job in [job for job in waiting if job.finished]:
                waiting.remove(job)
            open_now = [job for job in waiting if is_free(job.folder)]  # all are asked: who asks notices the lost
            for free in open_now[: processes - len(running)]:
                waiting.remove(free)
                gpu = min(all_gpus, key=list(gpus.values()).count, default=None)
                process = context.Process(target=_train, args=(free, threads, gpu, dict(seen)))
                process.start()
                running[process] = free
                if gpu is not None:
                    gpus[process] = gpu
            finished = sum(job.finished for job in jobs)
            bar.set_description(f"run {min(finished + 1, len(jobs))} of {len(jobs)}", refresh=False)
            bar.n = sum(job.epochs_done() for job in jobs)
            bar.refresh()
            time.sleep(POLL)
    if requests:
        left = sum(not job.finished for job in jobs)
        raise Interrupted(f"stopped with {left} of {len(jobs)} runs to go; the same command goes on.", requests[0])


@contextmanager
def _ending(processes: dict[ForkServerProcess, Job]) -> Iterator[None]:
    """Ask the processes that still run to save their places, however the block ends, and wait until they did."""
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _report(job: Job, exit_code: int, jobs: list[Job], bar: "tqdm[None]") -> None:
    if exit_code == 0:
        seconds = read_json(job.folder / "results.json")["seconds"]
        count = sum(other.finished for other in jobs)
        _say(bar, f"{count} of {len(jobs)} runs done: {job.folder.name}, {seconds:.0f} s of training")
        return
    if exit_code < 0:
        record_failure(job.folder, f"the process was killed by signal {-exit_code}; memory may have run out.")
    elif exit_code > 1:
        record_failure(job.folder, f"the process was asked to stop (exit code {exit_code}).")
    _say(bar, f"failed: {job.folder.name}: {job.failure() or f'exit code {exit_code}'}")


def _say(bar: "tqdm[None]", line: str) -> None:
    bar.write(line)
    sys.stdout.flush()  # into a log file too
