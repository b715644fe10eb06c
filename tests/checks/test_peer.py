"""A public network beside ours: any file that defines it, on the CPU whatever device it names."""

from pathlib import Path

import pytest
import torch

from dgcnn_ws.errors import InputError
from scripts.checks.peer import Arguments, public_network, table

MODEL = """
import torch
from torch import nn

class DGCNN_cls(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.linear = nn.Linear(3, args.k)

    def forward(self, x):
        ones = torch.ones(x.shape[0], 3, device=torch.device("cuda"))
        return self.linear(ones + x.mean(2))
"""


def test_a_network_that_names_a_card_runs_on_the_cpu(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    network = public_network(Arguments(tmp_path, k=7))
    assert network(torch.randn(2, 3, 5)).shape == (2, 7)
    assert torch.device("meta").type == "meta"  # to everyone else torch is what it was


@pytest.mark.parametrize(("text", "message"), [(None, "is no file"), ("x = 1", "defines no DGCNN_cls")])
def test_a_folder_without_the_network_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text:
        (tmp_path / "model.py").write_text(text)
    with pytest.raises(InputError, match=message):
        public_network(Arguments(tmp_path))


def test_ratios_are_taken_round_by_round(tmp_path: Path) -> None:
    times = {"public": [8.0, 16.0, 32.0], "ours": [1.0, 4.0, 16.0]}  # 8, 4 and 2 times as fast
    times["ours, bf16"] = times["ours"]
    floors = {"32": [0.25, 0.5, 1.0], "bf16": [0.125, 0.25, 0.5]}
    rows = [row.split() for row in table(Arguments(tmp_path, batch_size=2), "train", times, floors).splitlines()[2:]]
    same = ["2000.0", "(500.0", "-", "8000.0)", "4.0", "(2.0", "-", "8.0)"]
    assert rows == [["ours", *same, "500.0", "4.00"], ["ours,", "bf16", *same, "250.0", "8.00"]]
