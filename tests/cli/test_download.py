"""`python main.py download` as a user meets it."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from dgcnn_ws.cli import main
from dgcnn_ws.datasets.fetching import download, published
from dgcnn_ws.datasets.fetching.published import Published

ROOT = Path(__file__).parents[2]

FOLDER = "modelnet40_ply_hdf5_2048"
FILES = {"ply_data_train0.h5": b"training clouds" * 99, "ply_data_test0.h5": b"test clouds" * 99}


@pytest.fixture(autouse=True)
def _miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small files in ModelNet40's place, and a mirror that nobody answers on."""
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in FILES.items()}
    train, test = ({name: value for name, value in md5.items() if split in name} for split in ("train", "test"))
    small = Published("modelnet40", FOLDER, train, test, ("chair", "cup"), ("http://no-such-host.invalid/a.zip",))
    monkeypatch.setattr(published, "MODELNET40", small)
    monkeypatch.setattr(download, "PAUSE", 0)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "modelnet40.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in FILES.items():
            file.writestr(f"{FOLDER}/{name}", content)
    return tmp_path / "modelnet40.zip"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = main.main(["download", *map(str, arguments)])
    except SystemExit as stop:  # the argument parser's own
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_from_a_zip_then_again_then_repaired(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "data"
    code, out, err = run(capsys, "modelnet40", "--data-root", root, "--from", archive)
    assert (code, err) == (0, "")
    assert out == f"{root / FOLDER}: 2 files as published, from {archive}.\n"
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    code, out, err = run(capsys, "modelnet40", "--data-root", root)
    assert (code, err) == (0, "") and "all is well, 2 files as published. Nothing to do." in out
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times

    damaged = root / FOLDER / "ply_data_test0.h5"
    damaged.write_bytes(b"damaged")
    code, out, err = run(capsys, "modelnet40", "--data-root", root)  # offline
    assert code == 2 and "ply_data_test0.h5 is not the published file" in out and "train" not in out
    assert damaged.read_bytes() == b"damaged"
    code, out, err = run(capsys, "modelnet40", "--data-root", root, "--from", archive)
    assert code == 0 and damaged.read_bytes() == FILES["ply_data_test0.h5"]


def test_offline_is_three_lines_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "modelnet40", "--data-root", tmp_path / "data")
    assert code == 2 and not out and err.count("\n") == 3
    what, instead, without = err.splitlines()
    assert what.startswith("error: modelnet40 could not be fetched: no-such-host.invalid cannot be reached")
    assert "--from FILE_OR_FOLDER" in instead and "--dataset shapes" in without
    assert not list((tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scannet"], "'scannet' cannot be downloaded. Choose one of modelnet40."),
        (["modelnet40", "--from", "no.zip"], "no.zip does not exist"),
        (["modelnet40", "--from", "no.zip", "--url", "http://a/b"], "--from and --url exclude each other"),
        (["modelnet40", "--url", "file:///etc/passwd"], "is no http:// or https:// address"),
        (["modelnet40", "--url", "http://[half"], "is no http:// or https:// address"),
        (["modelnet40", "--url", "http://good/a", "--url", "ftp://a"], "--url 'ftp://a' is no"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *arguments, "--data-root", tmp_path)
    assert code == 2 and not out
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_data_root_that_cannot_be_written_to(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    code, _, err = run(capsys, "modelnet40", "--data-root", tmp_path / "file", "--from", archive)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1


def test_help_names_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for flag in ("--from", "--url", "--data-root"):
        assert flag in out
