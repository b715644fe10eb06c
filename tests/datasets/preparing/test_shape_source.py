"""Folders and archives as they are found: which files there are, and their bytes."""

import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from dgcnn_ws.datasets.preparing.layout import find_entries
from dgcnn_ws.datasets.preparing.shape_source import list_names, read_member
from dgcnn_ws.errors import InputError

Fill = Callable[..., Path]


def test_folders_and_nameless_members_of_an_archive_are_no_shapes(fill: Fill) -> None:
    source = fill(["a/1.off", "a/2.off/", "??", "b/1.off"], True)
    data = bytearray(source.read_bytes())
    entry = data.rindex(b"??")  # in the list of members at the end
    data[entry - 46 + 28 : entry - 46 + 30] = bytes(2)  # the name's length
    data[entry - 46 + 32 : entry - 46 + 34] = bytes([2, 0])  # its two bytes are a comment then
    source.write_bytes(data)
    with zipfile.ZipFile(source) as archive:
        assert "" in archive.namelist()
    assert [str(entry.path) for entry in find_entries(source).entries] == ["a/1.off", "b/1.off"]


def test_sources_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(InputError, match="not a zip file"):
        find_entries(tmp_path / "a.zip")
    for name in ("missing", "missing.zip", "a.tar"):
        with pytest.raises(InputError, match="neither a folder nor a zip"):
            find_entries(tmp_path / name)


def test_a_damaged_member(fill: Fill) -> None:
    source = fill(["a/1.off", "b/1.off"], True)
    data = source.read_bytes()
    source.write_bytes(data.replace(b"a/1.offa/1.off", b"a/1.offDAMAGED", 1))
    first, second = find_entries(source).entries
    with pytest.raises(InputError, match=r"a/1.off cannot be read from a\.zip"):
        read_member(source, first.path)
    assert read_member(source, second.path) == b"b/1.off"


def test_an_archive_of_an_old_windows_program(tmp_path: Path) -> None:
    names = ["a\\1.off", "a\\2.off", "b\\1.off", "b\\"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            info = zipfile.ZipInfo("x")
            info.filename = name  # the constructor would mend it
            archive.writestr(info, name)
    assert list_names(tmp_path / "a.zip") == [PurePosixPath(name) for name in ("a/1.off", "a/2.off", "b/1.off")]
    assert read_member(tmp_path / "a.zip", PurePosixPath("b/1.off")) == b"b\\1.off"


def test_a_folder_that_links_to_a_class_elsewhere_and_one_that_goes_in_circles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.off").write_text("")
    (tmp_path / "source/a").mkdir(parents=True)
    (tmp_path / "source/a/1.off").write_text("")
    (tmp_path / "source/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source/a/again").symlink_to(tmp_path / "source")
    assert list_names(tmp_path / "source") == [PurePosixPath("a/1.off"), PurePosixPath("b/1.off")]
