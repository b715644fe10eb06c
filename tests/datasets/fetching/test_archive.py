"""Files out of zips and folders: what is taken is exactly what was published, and hostile archives get nowhere."""

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from dgcnn_ws.datasets.fetching import archive
from dgcnn_ws.datasets.fetching.archive import take
from dgcnn_ws.datasets.fetching.published import Published
from dgcnn_ws.errors import InputError


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "a" / "place"
    folder.mkdir(parents=True)
    return folder


def pack(path: Path, copy: Path, extra: dict[str, bytes] | None = None, **options: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (extra or {}).items():
            file.writestr(name, content)
        for source in sorted(copy.iterdir()):
            file.write(source, f"{copy.name}/{source.name}", **options)
    return path


def refused(source: Path, miniature: Published, place: Path) -> str:
    """The one sentence of the refusal; nothing may have been written anywhere but in `place`."""
    root = place.parents[2]
    before = {path for path in root.rglob("*") if place not in path.parents}
    with pytest.raises(InputError) as error:
        take(source, miniature, place)
    assert {path for path in root.rglob("*") if place not in path.parents} == before
    assert {path.name for path in place.iterdir()} <= miniature.files.keys()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_from_a_zip(miniature: Published, copy: Path, place: Path, tmp_path: Path, method: int) -> None:
    extra = {f"__MACOSX/{copy.name}/._ply_data_test0.h5": b"", f"{copy.name}/ply_data_train_0_id2file.json": b"[]"}
    take(pack(tmp_path / "mirror.zip", copy, extra, compress_type=method), miniature, place)
    assert miniature.damage(place) == {}
    assert {path.name for path in place.iterdir()} == miniature.files.keys() | miniature.lists.keys()


def test_from_a_folder_and_from_the_folder_that_holds_it(miniature: Published, copy: Path, tmp_path: Path) -> None:
    for number, source in enumerate((copy, copy.parent)):
        (folder := tmp_path / str(number)).mkdir()
        take(source, miniature, folder)
        assert miniature.damage(folder) == {}
    assert miniature.damage(copy) == {}


def test_lists_of_the_source_are_not_believed(miniature: Published, copy: Path, place: Path, tmp_path: Path) -> None:
    (copy / "train_files.txt").write_text("/etc/passwd\nply_data_train1.h5\n")
    (copy / "shape_names.txt").write_text("\x1b[2J\n")
    take(pack(tmp_path / "mirror.zip", copy), miniature, place)
    assert miniature.damage(place) == {}


@pytest.mark.parametrize(
    "name",
    ["../ply_data_test0.h5", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "C:evil", "\\\\host\\share\\evil"],
)
def test_ways_out_of_the_folder(miniature: Published, copy: Path, place: Path, tmp_path: Path, name: str) -> None:
    message = refused(pack(tmp_path / "evil.zip", copy, {name: b"evil"}), miniature, place)
    assert "leads out of its folder, which is refused" in message


def test_links_are_refused(miniature: Published, copy: Path, place: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo(f"{copy.name}/notes")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = pack(tmp_path / "evil.zip", copy)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(link, "/etc")
    assert "'modelnet40_ply_hdf5_2048/notes' is a link, which is refused" in refused(path, miniature, place)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("where", ["modelnet40_ply_hdf5_2048", "other"])
def test_a_file_that_is_there_twice(miniature: Published, copy: Path, place: Path, tmp_path: Path, where: str) -> None:
    path = pack(tmp_path / "evil.zip", copy, {f"{where}/ply_data_test0.h5": b"first"})
    assert "holds ply_data_test0.h5 twice" in refused(path, miniature, place)


def test_missing_files_are_named(miniature: Published, copy: Path, place: Path, tmp_path: Path) -> None:
    (copy / "ply_data_train0.h5").unlink()
    assert "lacks ply_data_train0.h5" in refused(pack(tmp_path / "part.zip", copy), miniature, place)
    assert "ply_data_train0.h5 is missing" in refused(copy, miniature, place)
    assert "does not exist" in refused(tmp_path / "nothing.zip", miniature, place)


def test_another_file_under_the_right_name(miniature: Published, copy: Path, place: Path, tmp_path: Path) -> None:
    (copy / "ply_data_test0.h5").write_bytes(b"not the data")
    assert "ply_data_test0.h5 is not the published file" in refused(pack(tmp_path / "a.zip", copy), miniature, place)


def test_a_bomb_is_refused_by_what_it_declares(
    miniature: Published, copy: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 10 << 20)
    (copy / "ply_data_test0.h5").write_bytes(bytes(11 << 20))
    path = pack(tmp_path / "bomb.zip", copy)
    assert path.stat().st_size < 100_000
    assert "more than the 10485760 that are unpacked" in refused(path, miniature, place)
    assert not list(place.iterdir())
    assert "holds more than 10485760 bytes" in refused(copy, miniature, place)


def test_a_bomb_that_declares_little_is_cut_at_what_it_declares(
    miniature: Published, copy: Path, place: Path, tmp_path: Path
) -> None:
    (copy / "ply_data_test0.h5").write_bytes(bytes(9 << 20))
    content = pack(tmp_path / "bomb.zip", copy).read_bytes()
    path = tmp_path / "liar.zip"
    path.write_bytes(content.replace((9 << 20).to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    assert "ply_data_test0.h5 is damaged (Bad CRC" in refused(path, miniature, place)
    assert (place / "ply_data_test0.h5").stat().st_size <= 1000


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_without_a_bound_on_memory(
    miniature: Published, copy: Path, place: Path, tmp_path: Path, method: int
) -> None:
    path = pack(tmp_path / "other.zip", copy, compress_type=method)
    assert "not packed by deflate" in refused(path, miniature, place)


def test_a_directory_of_any_size_is_not_loaded(
    miniature: Published, copy: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "CHUNK", 1 << 14)
    path = pack(tmp_path / "many.zip", copy, {f"file{i}": b"" for i in range(400)})
    assert "its directory takes more than 16384 bytes" in refused(path, miniature, place)


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>404 Not Found</html>" * 100, bytes(100_000)])
def test_what_is_no_zip(miniature: Published, place: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "page.zip").write_bytes(content)
    assert "is not a zip, or not all of one" in refused(tmp_path / "page.zip", miniature, place)


def test_every_truncation_and_many_flipped_bytes_are_refused_or_harmless(
    miniature: Published, copy: Path, tmp_path: Path
) -> None:
    content = pack(tmp_path / "good.zip", copy).read_bytes()
    damaged = [content[: len(content) * i // 40] for i in range(40)]
    for i in range(0, len(content), len(content) // 200):
        damaged.append(content[:i] + bytes([content[i] ^ 0x81]) + content[i + 1 :])
    for number, variant in enumerate(damaged):
        (path := tmp_path / "damaged.zip").write_bytes(variant)
        (place := tmp_path / str(number)).mkdir()
        try:
            take(path, miniature, place)
        except InputError:
            continue
        assert miniature.damage(place) == {}  # the byte was one that does not count, such as a date


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a system with pipes")
def test_a_pipe_in_a_folder_does_not_hang(miniature: Published, copy: Path, place: Path) -> None:
    (copy / "ply_data_test0.h5").unlink()
    os.mkfifo(copy / "ply_data_test0.h5")
    assert "ply_data_test0.h5 is missing" in refused(copy, miniature, place)


def test_an_encrypted_zip(miniature: Published, copy: Path, place: Path, tmp_path: Path) -> None:
    content = io.BytesIO(pack(tmp_path / "good.zip", copy).read_bytes())
    with zipfile.ZipFile(content) as file:
        flags = file.start_dir + 8  # of the first entry of the directory
    raw = bytearray(content.getvalue())
    raw[flags] |= 1
    (tmp_path / "locked.zip").write_bytes(raw)
    assert "is encrypted" in refused(tmp_path / "locked.zip", miniature, place)
