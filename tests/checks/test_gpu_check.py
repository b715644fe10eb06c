"""`python -m scripts.checks.gpu_check` on the CPU, in tiny sizes: what fails is told, and the rest is done."""

import json
from pathlib import Path

import pytest

from dgcnn_ws.errors import InputError
from scripts.checks import gpu_check

ROOT = Path(__file__).parents[2]

TINY = ["--device", "cpu", "--tiny", "--epochs", "1", "--seeds", "1", "--jobs", "2"]


def findings(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "findings.jsonl").read_text().splitlines()]


def test_goes_on_after_a_failing_step_and_ends_with_the_tables(
    easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "random").write_text("")  # where the folder of random clouds should go
    patient = ["--minutes", "250", "--out", str(tmp_path), "--data-root", str(easy_root)]
    assert gpu_check.main([*TINY, *patient]) == 1
    found = findings(tmp_path)
    assert [line["step"] for line in found if "finished" in line] == list(gpu_check.STEPS)
    (failure,) = (line for line in found if "failure" in line)
    assert failure["step"] == "epochs" and "NotADirectoryError" in str(failure["failure"])
    compared = [line["comparison"] for line in found if "comparison" in line]
    assert len(compared) > 100 and all(comparison["agrees"] for comparison in compared)  # type: ignore[index]
    names = " ".join(comparison["name"] for comparison in compared)  # type: ignore[index]
    for word in (
        "knn",
        "float16",
        "EdgeConv ws_bcn eval bfloat16",
        "DGCNN bn train float32",
        "torch.compile",
        "equal passes",
    ):
        assert word in names
    cells = [line["cell"] for line in found if "cell" in line]
    assert [(c["norm"], *c["micro_batches"], len(c["runs"])) for c in cells] == [  # type: ignore[index]
        ("bn", 2, 1), ("bn", 8, 1), ("ws_gn", 1, 1), ("ws_gn", 8, 1), ("ws_bcn", 1, 1), ("ws_bcn", 8, 1),
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert out.index("## Right") < out.index("## Fast") < out.index("## Learning") < out.index("## Targets")
    assert (tmp_path / "report.md").read_text() in out
    assert f"- epochs, epochs: {failure['failure']}" in out


def test_a_step_that_takes_too_long_is_stopped_and_a_later_one_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*TINY, "--parts", "right,learning", "--minutes", "0.0001", "--data-root", str(tmp_path)]
    assert gpu_check.main([*command, "--out", str(tmp_path / "out")]) == 1
    failures = {str(line["step"]): str(line["failure"]) for line in findings(tmp_path / "out") if "failure" in line}
    assert failures.keys() == {name for name, step in gpu_check.STEPS.items() if step.part != "fast"}
    assert "its share of the time" in failures["operators"]
    assert "its share of the time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--parts", "right,wrong"], "--parts 'wrong' is unknown. Choose from right, fast, learning"),
        (["--parts", ","], "is an empty list"),
        (["--minutes", "0"], "--minutes is 0"),
        (["--device", "cuda:99"], "torch sees"),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        gpu_check.main([*TINY, *arguments, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_tests_that_it_runs_are_there() -> None:
    assert gpu_check.TESTS and all((ROOT / path).is_file() for path in gpu_check.TESTS)
