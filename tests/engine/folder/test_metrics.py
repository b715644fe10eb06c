"""Reading a run's lines, whatever a kill left of the last one."""

from pathlib import Path

import pytest

from dgcnn_ws.engine.folder.metrics import read_metrics
from dgcnn_ws.errors import InputError

LINES = b'{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "loss": 0.25}\n'


@pytest.mark.parametrize("torn", [b"", b"{", b'{"epoch": 3, "lo', b"\xff\x00", b"[" * 100_000, b"3"])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(LINES + torn)
    assert [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0.5, 0.25]


def test_a_whole_last_line_without_its_end_counts(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(LINES[:-1])
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("damage", [b"{\n", b"\n", b'{"loss": 1}\n', b"3\n", b"\xff\n"])
def test_damage_elsewhere_is_one_sentence(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(damage + LINES)
    with pytest.raises(InputError, match="line 1 is not"):
        read_metrics(tmp_path / "metrics.jsonl")
