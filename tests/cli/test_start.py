"""How the program is started: every way in is the same program, and answers before torch is imported."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dgcnn_ws
from dgcnn_ws.cli import main

ROOT = Path(__file__).parents[2]
SLOW = ("torch", "numpy", "numba", "h5py", "matplotlib", "trimesh", "tqdm", "pooch", "lightning_fabric", "tensorboard")

HELP = f"""
import contextlib, io, sys
from dgcnn_ws.cli import main
for command in main.COMMANDS:
    for arguments in ([command, "--help"], [command, "--colour", "red"]):
        with contextlib.suppress(SystemExit), contextlib.redirect_stderr(io.StringIO()):
            main.main(arguments)
assert not (found := set({SLOW!r}) & set(sys.modules)), found
"""


def python(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_help_and_mistakes_are_answered_before_anything_slow_is_imported() -> None:
    done = python("-c", HELP)
    assert done.returncode == 0, done.stderr
    assert all(f"usage: main.py {command} " in done.stdout for command in main.COMMANDS)


@pytest.mark.parametrize("way", [["main.py"], ["-m", "dgcnn_ws"]])
def test_the_version(way: list[str]) -> None:
    assert python(*way, "--version").stdout == f"dgcnn_ws {dgcnn_ws.__version__}\n"


@pytest.mark.parametrize("name", ["train", "evaluate", "compare"])
def test_scripts_run_directly(name: str, tmp_path: Path) -> None:
    done = python(ROOT / f"scripts/{name}.py", "--help", cwd=tmp_path)
    assert done.returncode == 0 and f"usage: scripts/{name}.py [-h]" in done.stdout, done.stderr


def test_scripts_run_as_modules() -> None:
    assert "usage: scripts/train.py" in python("-m", "scripts.train", "--help").stdout


def test_the_installed_command_is_the_same_program() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"dgcnn-ws": f"{main.__name__}:{main.start.__name__}"}


@pytest.mark.parametrize(
    ("started_as", "shown"),
    [("/usr/bin/dgcnn-ws", "dgcnn-ws"), ("a/dgcnn_ws/__main__.py", "python -m dgcnn_ws"), ("main.py", "main.py")],
)
def test_help_shows_what_was_typed(
    started_as: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [started_as, "runs", "--help"])
    with pytest.raises(SystemExit):
        main.start()
    assert f"usage: {shown} runs [-h]" in capsys.readouterr().out


def test_windows_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert main.start("train") == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and "Linux and macOS" in err and err.count("\n") == 1
