"""Every check in scripts/checks starts as it is documented: `python -m scripts.checks.NAME --help`."""

import runpy
import sys

import pytest

NAMES = ("benchmark_stream", "communication", "conversion", "fuzz_datasets", "fuzz_files", "gpu_check", "inject_faults")
NAMES += ("loops", "normals", "one_import", "peer", "small_sets", "soak")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("name", NAMES)
def test_help(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module(f"scripts.checks.{name}", run_name="__main__", alter_sys=False)
    assert not stop.value.code and "usage:" in capsys.readouterr().out
