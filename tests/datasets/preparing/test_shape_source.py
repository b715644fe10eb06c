"""Folders and archives as they are found: which files are shapes, of which class and split."""

import zipfile
from pathlib import Path

import pytest

from dgcnn_ws.datasets.preparing.shape_source import Entry, find_entries, read_member
from dgcnn_ws.errors import InputError

PRINCETON = [
    "README.txt",
    "ModelNet10/README.txt",
    "ModelNet10/.DS_Store",
    "ModelNet10/bed/train/bed_0001.off",
    "ModelNet10/bed/train/.hidden.off",
    "ModelNet10/bed/test/bed_0002.off",
    "ModelNet10/night_stand/train/night_stand_0001.OFF",
    "ModelNet10/night_stand/test/notes.doc",
    "__MACOSX/ModelNet10/bed/train/bed_0001.off",
]


def fill(root: Path, names: list[str], archive: bool) -> Path:
    if archive:
        with zipfile.ZipFile(root / "a.zip", "w") as file:
            for name in names:
                file.writestr(name, name)
        return root / "a.zip"
    for name in names:
        (root / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "a" / name).write_text(name)
    return root / "a"


def described(entries: list[Entry]) -> list[tuple[str, str, str | None]]:
    return [(entry.path.name, entry.class_name, entry.split) for entry in entries]


@pytest.mark.parametrize("archive", [False, True])
def test_princetons_layout(tmp_path: Path, archive: bool) -> None:
    source = fill(tmp_path, PRINCETON, archive)
    entries = find_entries(source)
    assert described(entries) == [
        ("bed_0002.off", "bed", "test"),
        ("bed_0001.off", "bed", "train"),
        ("night_stand_0001.OFF", "night_stand", "train"),
    ]
    assert read_member(source, entries[0].path) == b"ModelNet10/bed/test/bed_0002.off"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b/1.ply", "a/2.xyz", "a/1.npz"], [("1.npz", "a", None), ("2.xyz", "a", None), ("1.ply", "b", None)]),
        (["x/test/a/1.glb", "x/train/b/1.glb"], [("1.glb", "a", "test"), ("1.glb", "b", "train")]),
    ],
)
def test_other_layouts(tmp_path: Path, names: list[str], expected: list[object]) -> None:
    assert described(find_entries(fill(tmp_path, names, False))) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.doc"], "holds no shapes"),
        (["a/1.off"], "does not fit in"),  # one class only
        (["chair/train/1.off", "chair/test/2.off"], "does not fit in"),
        (["a/1.off", "b/left/1.off", "b/right/1.off"], "does not fit in"),
        (["a/1.off", "b/train/1.off"], "some classes have train and test folders"),
        (["a/1.off", "b\n/1.off"], "cannot name a class"),
    ],
)
def test_layouts_that_cannot_be_understood(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_entries(fill(tmp_path, names, False))


def test_folders_and_nameless_members_of_an_archive_are_no_shapes(tmp_path: Path) -> None:
    source = fill(tmp_path, ["a/1.off", "a/2.off/", "??", "b/1.off"], True)
    data = bytearray(source.read_bytes())
    entry = data.rindex(b"??")  # in the list of members at the end
    data[entry - 46 + 28 : entry - 46 + 30] = bytes(2)  # the name's length
    data[entry - 46 + 32 : entry - 46 + 34] = bytes([2, 0])  # its two bytes are a comment then
    source.write_bytes(data)
    with zipfile.ZipFile(source) as archive:
        assert "" in archive.namelist()
    assert [str(entry.path) for entry in find_entries(source)] == ["a/1.off", "b/1.off"]


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match="not a zip file"):
        find_entries(tmp_path / "a.zip")
    for name in ("missing", "missing.zip", "a.tar"):
        with pytest.raises(InputError, match="neither a folder nor a zip"):
            find_entries(tmp_path / name)


def test_a_damaged_member(tmp_path: Path) -> None:
    source = fill(tmp_path, ["a/1.off", "b/1.off"], True)
    data = source.read_bytes()
    source.write_bytes(data.replace(b"a/1.offa/1.off", b"a/1.offDAMAGED", 1))
    first, second = find_entries(source)
    with pytest.raises(InputError, match=r"a/1.off cannot be read from a\.zip"):
        read_member(source, first.path)
    assert read_member(source, second.path) == b"b/1.off"
