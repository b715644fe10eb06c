"""`python main.py benchmark` as a user meets it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from dgcnn_ws.benchmark import benchmark
from dgcnn_ws.cli import main

ROOT = Path(__file__).parents[2]

SMALL = ["--k", "5", "--emb-dims", "32", "--batch-sizes", "1,2", "--num-points", "32", "--rounds", "2"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One step a turn however short, memory without a process of its own, and no threads to wait for."""
    monkeypatch.setattr(benchmark, "SHORTEST", 0)
    monkeypatch.setattr(benchmark, "peak_memory", lambda setting, implementation: 3_000_000)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = main.main(["benchmark", *map(str, arguments)])
    except SystemExit as stop:  # the argument parser's own
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.usefixtures("quick")
def test_table_file_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [*SMALL, "--modes", "train,layers", "--num-points", "32,48", "--norms", "bn"]
    files = ["--json", tmp_path / "figures.json", "--plot", tmp_path / "figures.png"]
    code, out, err = run(capsys, *small, "--profile", *files)
    assert code == 0, err
    content = json.loads((tmp_path / "figures.json").read_text())
    rows = content["rows"]
    measured = {(r["mode"], r["num_points"], r["batch_size"], r["implementation"]) for r in rows}
    places = [(n, size) for n in (32, 48) for size in (1, 2)]
    assert measured == {
        *(("train", *place, i) for place in places for i in ("reference", "fused")),
        *(("layers", 32, 1, i) for i in ("reference", "fused", "torch_geometric")),
    }
    assert len(rows) == len(measured) == 11
    assert content["arguments"]["k"] == 5 and content["environment"]["torch"] == torch.__version__
    assert "est head" in out and "GFLOP/s" in out
    assert all(operator["operator"] in out for operator in content["profile"])
    # Every row of the tables says what the file says.
    table = [line.split() for line in out.splitlines() if line.startswith("bn ")]
    assert [(w[1], int(w[2]), int(w[3]), w[4]) for w in table] == [
        ("32", r["num_points"], r["batch_size"], r["implementation"]) for r in rows
    ]
    for line, row in zip(table, rows, strict=True):
        assert float(line[5]) == pytest.approx(row["milliseconds_per_cloud"]["median"], rel=1e-2)
        assert float(line[-1]) == pytest.approx(3 / row["batch_size"])
    assert (tmp_path / "figures.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("quick")
def test_columns_stay_aligned_beside_what_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, *SMALL, "--modes", "train", "--max-memory-gb", "0.000001")
    assert code == 0
    lines = [line for line in out.splitlines() if " fused" in line or " reference" in line]
    assert len(lines) == 8
    for line in lines:
        assert ("not run: needs about" in line) == (" reference" in line)
    heading = next(line for line in out.splitlines() if line.startswith("norm"))
    assert {len(line) for line in lines if " fused" in line} == {len(heading)}
    assert "--max-memory-gb" in out.splitlines()[-1]


@pytest.mark.usefixtures("quick")
def test_layers_alone_are_measured_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "layers.svg"
    code, out, _ = run(capsys, *SMALL, "--modes", "layers", "--norms", "gn", "--plot", picture)
    assert code == 0
    assert sum(line.startswith("gn ") for line in out.splitlines()) == 6
    assert "EdgeConv layers, graph given" in out
    assert "<svg" in picture.read_text()


@pytest.mark.usefixtures("quick")
def test_ragged_clouds_against_torch_geometric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "ragged.svg"
    small = [*SMALL, "--modes", "ragged,ragged_deep", "--norms", "bn,ws_gn", "--num-points", 48]
    code, out, err = run(capsys, *small, "--plot", picture)
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if line.startswith(("bn ", "ws_gn "))]
    assert [row[4] for row in rows] == ["torch_geometric", "fused"] * (len(rows) // 2) and len(rows) >= 12
    assert "clouds of different sizes" in out and "<svg" in picture.read_text()


@pytest.mark.usefixtures("quick")
def test_precisions_stand_beside_each_other_each_with_its_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures, picture = tmp_path / "figures.json", tmp_path / "figures.svg"
    small = [*SMALL, "--modes", "inference", "--norms", "gn", "--batch-sizes", 1, "--precision", "32,bf16"]
    code, out, err = run(capsys, *small, "--json", figures, "--plot", picture)
    assert code == 0, err
    rows = json.loads(figures.read_text())["rows"]
    assert [row["precision"] for row in rows] == ["32", "32", "bf16", "bf16"]
    assert [len(row["product_gflops"]) for row in rows] == [2, 2, 4, 4]
    assert [line.split()[1] for line in out.splitlines() if line.startswith("gn ")] == ["32", "32", "bf16", "bf16"]
    assert "gn bf16" in picture.read_text()
    code, _, err = run(capsys, *SMALL, "--precision", "32,8")
    assert code != 0 and "--precision '8' is unknown" in err


@pytest.mark.usefixtures("quick")
def test_threads_are_the_ones_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    small = [*SMALL, "--modes", "inference", "--norms", "bn", "--batch-sizes", 1]
    assert run(capsys, *small, "--threads", 2, "--json", figures)[0] == 0
    assert json.loads(figures.read_text())["environment"]["threads"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-sizes", "1,four"], "--batch-sizes '1,four' must be whole numbers"),
        (["--batch-sizes", "0"], "--batch-sizes '0' must be whole numbers from 1"),
        (["--num-points", ""], "--num-points '' is an empty list"),
        (["--num-points", "1024,12"], "k=20 neighbours need at least 20 points; --num-points asks for 12"),
        (["--norms", "ws_gn,nope"], "norm 'nope' is unknown"),
        (["--modes", "train,fly"], "--modes 'fly' is unknown"),
        (["--k", "0"], "--k is 0"),
        (["--emb-dims", "0"], "--emb-dims is 0"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--threads", "0"], "--threads is 0"),
        (["--patience", "-1"], "--patience is -1.0"),
        (["--max-memory-gb", "nan"], "--max-memory-gb is nan"),
        (["--device", "gpu"], "--device 'gpu' is unknown"),
        (["--json", "nowhere/figures.json"], "there is no folder nowhere"),
        (["--plot", "figures.txt"], "cannot be drawn. End it in .png, .pdf, .svg"),
    ],
)
def test_bad_input_is_one_sentence_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not out


def test_help_says_how_memory_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert "above the idle process" in " ".join(out.split())


@pytest.mark.skipif(sys.platform != "linux", reason="sends a signal to a group of processes")
def test_ctrl_c_stops_every_process_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "main.py", "benchmark", *SMALL, "--num-points", "512", "--rounds", "999"]
    said = tmp_path / "stderr"
    with open(said, "w") as err:
        process = subprocess.Popen(
            [*command, "--patience", "600"], cwd=ROOT, stdout=subprocess.PIPE, stderr=err, start_new_session=True
        )
    assert process.stdout is not None
    process.stdout.readline()  # the first line comes just before the measuring
    for _ in range(12):  # one that arrives inside a callback of compiled code may be lost, as anywhere in Python
        if process.poll() is None and "stopped" not in said.read_text():
            os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
            break
    process.stdout.close()
    assert process.returncode == 130
    assert said.read_text().endswith("stopped.\n") and "Traceback" not in said.read_text()
