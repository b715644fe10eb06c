"""`main.py runs`: the table of real runs, and `train` that keeps others out of its folder."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dgcnn_ws.cli import main
from dgcnn_ws.engine.folder.claim import claim


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_runs_of_train_from_start_to_end(easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--dataset", "modelnet10", "--num-points", 32, "--k", 5, "--emb-dims", 32, "--batch-size", 8]
    train = ["train", *small, "--data-root", easy_root, "--epochs", 1, "--out", tmp_path]
    assert run(capsys, *train, "--name", "good")[0] == 0
    code, _, err = run(capsys, *train, "--name", "bad", "--lr", 1e20)
    assert code == 2 and "loss became" in err
    with claim(tmp_path / "bad"):
        code, _, err = run(capsys, *train, "--name", "bad", "--lr", 1e20, "--resume")
        assert code == 2 and "is being trained by another process" in err and err.count("\n") == 1
        _, out, _ = run(capsys, "runs", tmp_path)
        assert "running" in out
    (tmp_path / "good/results.json").rename(tmp_path / "results.json")
    code, out, _ = run(capsys, "runs", tmp_path, "--sort", "state")
    assert code == 0
    heading, first, second = out.splitlines()[:3]
    assert heading.split()[:2] == ["run", "data"]
    assert "--num-points 32 --k 5 --emb-dims 32  " in first and "--emb-dims 32 --lr 1e+20  " in second
    assert first.startswith("good") and "interrupted" in first and "8/8" in first and "1/1" in first
    assert second.startswith("bad") and "failed" in second and "loss became" in second
    (tmp_path / "results.json").rename(tmp_path / "good/results.json")
    code, out, _ = run(capsys, "runs", tmp_path, "--json", "--sort", "score")
    best, other = json.loads(out)
    assert best["name"] == "good" and best["state"] == "finished" and other["state"] == "failed"
    results = json.loads((tmp_path / "good/results.json").read_text())
    assert best["test_accuracy"] == results["best"]["overall_accuracy"]
    assert best["score"] == results["last_epoch"]["overall_accuracy"]


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    ends, starts = os.pipe()
    os.close(ends)
    for arguments in (["runs", str(tmp_path)], ["--help"]):
        command = [sys.executable, "-m", "dgcnn_ws", *arguments]
        done = subprocess.run(command, stdout=starts, stderr=subprocess.PIPE, check=False)
        assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
    os.close(starts)


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "runs", tmp_path / "none")
    assert code == 2 and "none is not a folder" in err
    assert run(capsys, "runs", tmp_path) == (0, f"no runs in {tmp_path}\n", "")
