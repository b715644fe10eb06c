"""`python main.py inspect` as a user meets it."""

import json
import os
import shutil
from pathlib import Path

import h5py
import pytest

from dgcnn_ws.cli import main
from dgcnn_ws.datasets import ModelNet10

ROOT = Path(__file__).parents[2]

SHARED = Path(os.environ.get("DGCNN_WS_DATA", ROOT.parent / "shared"))
needs_modelnet10 = pytest.mark.skipif(ModelNet10.find(SHARED) is None, reason="ModelNet10 is not at hand")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = main.main(["inspect", *map(str, arguments)])
    except SystemExit as stop:  # the argument parser's own
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_counts_bounds_file_and_picture(easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", tmp_path / "found.json", "--picture", tmp_path / "sheet.png"]
    code, out, err = run(capsys, "modelnet10", "--data-root", easy_root, *files)
    assert (code, err) == (0, "")
    assert "51 clouds of 48 points, 3 classes" in out and "duplicates: none" in out
    assert ["all", "37", "3", "11"] in [line.split() for line in out.splitlines()]
    found = json.loads((tmp_path / "found.json").read_text())
    assert sum(sum(row.values()) for row in found["classes"].values()) == 51
    assert found["bounds"]["train"]["radius"] == pytest.approx([1, 1], abs=1e-5)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_duplicates_are_named(easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(easy_root / "modelnet10_ply_hdf5_2048", tmp_path / "mine")
    with h5py.File(folder / "ply_data_train0.h5") as train, h5py.File(folder / "ply_data_test0.h5", "a") as test:
        test["data"][2] = train["data"][5][::-1]
        test["label"][2] = (train["label"][5] + 1) % 3
    code, out, _ = run(capsys, folder, "--json", tmp_path / "found.json")  # a folder of any name
    assert code == 0
    assert "duplicates: 2 clouds, same as another" in out
    assert "0 within train, 0 within test, 1 across both; 1 under more than one label" in out
    assert "ply_data_train0.h5[5] = ply_data_test0.h5[2]" in out
    (group,) = json.loads((tmp_path / "found.json").read_text())["duplicates"]
    assert [cloud["place"] for cloud in group] == ["ply_data_train0.h5[5]", "ply_data_test0.h5[2]"]
    assert group[0]["class"] != group[1]["class"]
    files = ["--json", tmp_path / "near.json", "--near-picture", tmp_path / "pairs.png"]
    code, out, err = run(capsys, folder, "--near-duplicates", *files)
    assert (code, err) == (0, "")
    assert "ply_data_test0.h5[2] is" in out
    pairs = json.loads((tmp_path / "near.json").read_text())["near_duplicates"]["test"]
    (pair,) = (pair for pair in pairs if pair["test"] == "ply_data_test0.h5[2]" and pair["shared"] == 1)
    assert pair["train"] == "ply_data_train0.h5[5]" and len(set(pair["labels"])) == 2
    assert (tmp_path / "pairs.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shapes", "--near-picture", "a.png"], "Add that"),
        (["scannet"], "'scannet' is no data set (shapes, modelnet10, modelnet40) and no folder"),
        (["modelnet40", "--data-root", "nowhere"], "ModelNet40 is not at nowhere"),
        (["shapes", "--picture", "sheet.txt"], "--picture sheet.txt cannot be drawn"),
        (["shapes", "--json", "nowhere/found.json"], "nowhere is not a folder"),
        (["scripts"], "shape_names.txt is missing"),
    ],
)
def test_bad_input_is_one_sentence_at_once(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    code, out, err = run(capsys, *arguments)
    assert code == 2 and not out
    assert err.startswith("error: ") and message in err and err.count("\n") == 1


@needs_modelnet10
def test_modelnet10_has_no_exact_duplicates(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "modelnet10", "--data-root", SHARED)
    assert code == 0
    assert "4,827 clouds of 2,048 points, 10 classes" in out and "duplicates: none" in out
