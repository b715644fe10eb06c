"""What the whole-batch head costs is measured on any data set."""

from pathlib import Path

import pytest

from scripts.checks import whole_head


def test_prints_a_row_for_each_micro_batch(
    easy_root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--dataset", "modelnet10", "--data-root", str(easy_root), "--num-points", "20", "--precision", "32"]
    monkeypatch.setattr("sys.argv", ["whole_head", *flags, "--micro-batches", "8,32"])
    whole_head.main()
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| micro-batch | est, s | bn_whole, s | ratio |"
    assert [row.split("|")[1].strip() for row in rows] == ["8", "32"]
