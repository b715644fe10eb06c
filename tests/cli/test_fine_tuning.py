"""`train --from`: from one data set to another, and more epochs on a finished run."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from dgcnn_ws.cli import main
from dgcnn_ws.engine.folder.checkpoint import load_checkpoint

SMALL = ["--num-points", "32", "--k", "5", "--emb-dims", "16", "--batch-size", "8", "--epochs", "1"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_train_from_a_checkpoint(easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--dataset", "modelnet10", "--data-root", easy_root]
    code, _, err = run(capsys, "train", *SMALL, *data, "--out", tmp_path, "--name", "first")
    assert code == 0, err
    own = tmp_path / "own"  # shapes of one's own, of two classes
    for name in ("rod", "disc"):
        (own / name).mkdir(parents=True)
        for i in range(12):
            cloud = np.random.default_rng(i).normal(size=(50, 3)) * ((1, 0.05, 0.05) if name == "rod" else (1, 1, 0.05))
            np.save(own / name / f"{i}.npy", cloud)
    code, _, err = run(capsys, "prepare", own, "--out", tmp_path / "prepared", "--num-points", 40)
    assert code == 0, err

    start, places = tmp_path / "first", ["--out", tmp_path, "--batch-size", 8, "--micro-batch", 4]
    tuned = ["train", "--from", start, "--dataset", tmp_path / "prepared", "--epochs", 2, "--freeze", *places]
    code, _, err = run(capsys, *tuned, "--name", "tuned")
    assert code == 0, err
    config = json.loads((tmp_path / "tuned/config.json").read_text())
    assert (config["k"], config["emb_dims"], config["num_points"]) == (5, 16, 32)  # the checkpoint's, not the defaults
    first, last = load_checkpoint(start / "best.pt"), load_checkpoint(tmp_path / "tuned/last.pt")
    assert last["class_names"] == ["disc", "rod"]
    same = {
        name for name, value in last["model"].items() if torch.equal(value, first["model"].get(name, torch.empty(0)))
    }
    body = {name for name in last["model"] if name.startswith(("edge_convs", "global_feature"))}
    assert body <= same and not any(name.startswith("head.layers") for name in same)

    code, _, err = run(capsys, "train", "--from", start / "last.pt", "--epochs", 1, *places, "--name", "more")
    assert code == 0, err  # the same data, since no other are named
    more = json.loads((tmp_path / "more/config.json").read_text())
    assert more["dataset"] == "modelnet10" and more["data_root"] == str(easy_root)
    # One network, trained in two ways: a batch-norm head of any batch goes on with the whole of another.
    for name, *how in (
        ("bn", "--head-norm", "bn", *data),
        ("whole", "--from", tmp_path / "bn", "--head-norm", "bn_whole", "--average-weights", 0.5),
        ("frozen", "--from", tmp_path / "whole", "--freeze"),
        ("back", "--from", tmp_path / "whole", "--head-norm", "bn"),
    ):
        code, _, err = run(
            capsys, "train", *(SMALL if name == "bn" else ("--epochs", 1)), *how, *places, "--name", name
        )
        assert code == 0, err
    whole, frozen = (load_checkpoint(tmp_path / name / "last.pt")["model"] for name in ("whole", "frozen"))
    assert {name for name in whole if not torch.equal(whole[name], frozen[name])} == {
        name for name in whole if name.startswith("head.")
    }

    for wrong, message in (
        (["--from", start, "--k", 6], "is a network of --k 5, not 6: leave --k out"),
        (["--from", tmp_path / "nothing.pt"], "does not exist"),
        (["--freeze"], "Name a checkpoint with --from"),
    ):
        code, _, err = run(capsys, "train", *wrong, *places, *data, "--name", "wrong")
        assert code == 2 and message in err and err.count("\n") == 1


def test_a_set_of_ones_own_has_settings_of_its_own(
    easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = shutil.copytree(easy_root / "modelnet10_ply_hdf5_2048", tmp_path / "mine")
    tiny = ["--k", 5, "--num-points", 32, "--emb-dims", 16, "--out", tmp_path]
    code, out, err = run(capsys, "train", "--dataset", mine, *tiny, "--epochs", 1)
    assert code == 0, err
    assert "usual for 37 training clouds" in out and "classical baseline" in out
    assert "fewer steps than it needs: 4" in out
    config = json.loads((tmp_path / "mine-dgcnn-ws_gn-mb8-seed0/config.json").read_text())
    assert (config["batch_size"], config["emb_dims"], config["epochs"]) == (8, 16, 1)  # what flags say, counts
    (tmp_path / "some.yaml").write_text("emb_dims: 24\nepochs: 2\n")
    settings = ["--config", tmp_path / "some.yaml", "--k", 5, "--num-points", 32, "--out", tmp_path, "--name", "yaml"]
    code, _, err = run(capsys, "train", "--dataset", mine, *settings, "--epochs", 1)
    config = json.loads((tmp_path / "yaml/config.json").read_text())
    assert (config["batch_size"], config["emb_dims"], config["epochs"]) == (8, 24, 1)
    # A run of version 0.1 is found by the name that it had then.
    old = ["train", "--dataset", mine, "--resume", "--out", tmp_path]
    (tmp_path / "mine-dgcnn-ws_gn-mb8-seed0").rename(tmp_path / "mine-dgcnn-ws_gn-mb32-seed0")
    code, _, err = run(capsys, *old)
    assert code == 2 and "mb32-seed0 is finished" in err
