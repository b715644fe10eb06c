"""What a folder and a checkpoint say of how their data were prepared, and what is made of wrong answers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dgcnn_ws.datasets.frame import Frame, frame_of, read_frame
from dgcnn_ws.errors import InputError


def test_a_folder_from_elsewhere_and_one_from_before(tmp_path: Path) -> None:
    assert read_frame(tmp_path) is None
    before = {"settings": {"num_points": 300, "up": "y", "test_fraction": 0.2, "seed": 0}, "skipped": []}
    (tmp_path / "prepare.json").write_text(json.dumps(before))
    assert read_frame(tmp_path) == Frame("y", 300, "unit_sphere")


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[" * 100_000, "[]", '{"settings": 7}', '{"settings": {"up": "y"}}']
)
def test_a_damaged_folder(content: str, tmp_path: Path) -> None:
    (tmp_path / "prepare.json").write_text(content)
    with pytest.raises(InputError, match=r"prepare\.json is damaged"):
        read_frame(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up": "x"}, "should say up z or y"),
        ({"up": torch.zeros(3)}, "should say up z or y"),
        ({"num_points": 0}, "num_points from 1 to"),
        ({"num_points": True}, "num_points from 1 to"),
        ({"num_points": 10**6000}, "num_points from 1 to"),  # too long for Python to print
        ({"normalization": "unit_box"}, "normalization unit_sphere"),
        ({"normalization": None}, "normalization unit_sphere"),
    ],
)
def test_foreign_values(change: dict[str, Any], message: str) -> None:
    values = {"up": "y", "num_points": 64, "normalization": "unit_sphere"}
    assert frame_of(values, Path("a.pt")) == Frame("y", 64)
    with pytest.raises(InputError, match=message) as caught:
        frame_of(values | change, Path("a.pt"))
    assert str(caught.value).startswith("a.pt ") and len(str(caught.value)) < 200
