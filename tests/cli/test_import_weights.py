"""`python main.py import` of files as trainers write them."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dgcnn_ws.cli import main
from dgcnn_ws.engine.folder.checkpoint import restore_model

Save = Callable[[dict[str, torch.Tensor], Path], None]


def in_trainers_file(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save({"args": Namespace(k=20), "best_acc": np.float64(92.9), "model": state, "epoch": 3}, path)


def in_lightnings_file(state: dict[str, torch.Tensor], path: Path) -> None:
    named = {f"net.{name}": value for name, value in state.items()}
    torch.save({"state_dict": named | {"loss.weight": torch.ones(4)}, "pytorch-lightning_version": "2.5"}, path)


def in_safetensors(state: dict[str, torch.Tensor], path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({name: value.clone() for name, value in state.items()}, path)


@pytest.mark.parametrize("save", [in_trainers_file, in_lightnings_file, in_safetensors])
def test_a_file_in_each_wrapping(
    save: Save, tmp_path: Path, public_dgcnn: Callable[..., nn.Module], capsys: pytest.CaptureFixture[str]
) -> None:
    public = public_dgcnn(16, 5, 4).eval()
    file, out = tmp_path / ("a.safetensors" if save is in_safetensors else "a.ckpt"), tmp_path / "out.pt"
    save(public.state_dict(), file)
    (tmp_path / "names.txt").write_text("bed\nchair\nsofa\ntable\n")
    arguments: list[Any] = ["import", file, "--out", out, "--classes", tmp_path / "names.txt", "--k", 5]
    assert main.main([str(argument) for argument in arguments]) == 0
    assert ("left out, beside the network: loss.weight" in capsys.readouterr().out) == (save is in_lightnings_file)
    model, _, _ = restore_model(out)
    x = torch.randn(2, 3, 30)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(x), public(x), rtol=1e-4, atol=1e-5)


def test_what_is_no_state_dict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"\x05\0\0\0\0\0\0\0hello")
    torch.save(torch.zeros(3), tmp_path / "b.pt")
    for name, message in (("a.safetensors", "is no .safetensors file, or damaged"), ("b.pt", "holds no state dict")):
        assert main.main(["import", str(tmp_path / name), "--out", str(tmp_path / "out.pt")]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
