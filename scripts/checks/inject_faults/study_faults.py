"""Faults on a study: on the command that compares, on a process that trains for it, and on a run's files."""

import os
import shutil
import signal
import time
from contextlib import suppress

from dgcnn_ws.proc import family, open_files
from scripts.checks.inject_faults.bench import DIED, TOLD, WENT_ON, Bench, Hows, Lost, Started, check_told, start
from scripts.checks.inject_faults.run_faults import damage


def start_study(bench: Bench) -> Started:
    """Start the study and return when one of its runs is about to train."""
    process = start(bench, "study")
    while not any(bench.study.glob("*/events*")) and process.poll() is None:
        time.sleep(0.005)
    time.sleep(bench.rng.uniform(0, 2 * bench.lasts))
    return process


def kill_study(bench: Bench) -> Hows:
    process = start_study(bench)
    process.kill(signal.SIGKILL)
    return [DIED] if process.wait() == -signal.SIGKILL else []


def kill_worker(bench: Bench) -> Hows:
    process = start_study(bench)
    for pid in family(process.pid):
        with suppress(OSError):
            if any(path.endswith("/claim") for path in open_files(pid)):
                os.kill(pid, signal.SIGKILL)
                break
    else:
        process.wait()  # none had begun, or all were done
        return []
    process.wait()
    if "killed by signal 9" not in check_told(process):
        raise Lost(process.said())
    return [TOLD]


def stop_study(bench: Bench) -> Hows:
    signum, process = bench.rng.choice([signal.SIGTERM, signal.SIGINT]), start_study(bench)
    process.kill(signum)
    if process.wait() == 0:
        return []
    if process.code != 128 + signum or "the same command goes on" not in process.said():
        raise Lost(f"exit code {process.code}: {process.said()[-600:]}")
    return [WENT_ON]


def damaged_study(bench: Bench) -> Hows:
    """Damage in one file of a study: of a run that is finished, or of one that has to go on."""
    shutil.copytree(bench.work / "whole-study", bench.study)
    name = bench.rng.choice(["results.json", "failure.json", "config.json", "last.pt", "best.pt", "metrics.jsonl"])
    run = bench.rng.choice(sorted(path.parent for path in bench.study.glob("*/results.json")))
    path = run / name
    if name == "failure.json":
        path.write_text('{"error": "the process was killed by signal 9", "details": ""}')
    content = path.read_bytes()
    if name == "results.json":  # a changed digit in it would be another result, and nobody could know
        path.write_bytes(content[: bench.rng.randrange(len(content) - 2)])
    else:
        (run / "results.json").unlink()
        path.write_bytes(damage(content, bench.rng))
    process = start(bench, "study")
    if process.wait() == 0:
        return [WENT_ON]
    check_told(process)
    path.write_bytes(content)
    return [TOLD]
