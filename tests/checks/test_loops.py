"""The table of loops has a row for each, in both precisions."""

import pytest
import torch

from scripts.checks import loops


def test_every_loop_has_a_time_in_both_precisions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    loops.main(num_points=24, calls=1)
    rows = [line.rsplit(None, 2) for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 12 and {"search, 64 channels", "edges backward, 256"} <= {row[0].strip() for row in rows}
    assert all(float(cell) >= 0 for row in rows for cell in row[1:])
