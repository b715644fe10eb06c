"""A published data set's files out of a zip or a folder that nobody vouches for: checked while they are copied.

No name from an archive is ever used as a path: the expected files are looked up by base name and written under
names of our own. So nothing can leave the folder, and what else an archive holds stays in it.
"""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import Any

from dgcnn_ws.datasets.fetching.published import Published, new_md5
from dgcnn_ws.errors import InputError

# ModelNet40's seven files take 0.4 GB together.
MAX_BYTES = 2 << 30
CHUNK = 1 << 20
# What zipfile raises for bytes that are no zip. RuntimeError is encryption, and NotImplementedError one of it.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, RuntimeError, ValueError, OverflowError, OSError)

Chunks = Callable[[str], Iterator[bytes]]


def take(source: Path, published: Published, folder: Path) -> None:
    """Fill `folder` with the files of `published`, each one verified, and its lists.

    Args:
        source: a zip, the layout folder, or a folder that holds it.
        folder: an empty folder. After an error it holds an unfinished copy: throw it away.

    Raises:
        InputError: `source` does not hold the data set, or tries something that no data set needs.
    """
    if source.is_dir():
        inner = source / published.folder
        read: Chunks = FolderFiles(inner if inner.is_dir() else source).read
        copy(source, published, folder, read)
    elif source.is_file():
        with open_zip(source) as archive:
            copy(source, published, folder, ZipFiles(source, archive, list(published.files)).read)
    else:
        raise InputError(f"{source} does not exist; name a zip of {published.name}, or its folder.")
    published.write_lists(folder)


def copy(source: Path, published: Published, folder: Path, read: Chunks) -> None:
    """Copy every file of `published` and hash it on the way."""
    total = 0
    for name, md5 in published.files.items():
        digest = new_md5()
        with open(folder / name, "xb") as file:
            for chunk in read(name):
                total += len(chunk)
                if total > MAX_BYTES:
                    raise InputError(f"{source} holds more than {MAX_BYTES} bytes, which {published.name} does not.")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != md5:
            raise InputError(
                f"{source}: {name} is not the published file (its MD5 is {digest.hexdigest()}, not {md5}); "
                "take another copy."
            )


class FolderFiles:
    """The files of a folder, read by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> Iterator[bytes]:
        path = self.folder / name
        if not path.is_file():
            raise InputError(f"{path} is missing; name a folder that holds all files, or a zip.")
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


class ZipFiles:
    """Files of a zip, found by base name and read by it.

    Args:
        path: the zip, for messages.
        archive: the same, opened.
        names: base names of the files that it must hold, each once.

    Raises:
        InputError: one is missing, or there are things in the zip that no data set needs: ways out of the folder,
            links, encryption, other compression than deflate (whose memory zipfile bounds), too many bytes.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, names: list[str]) -> None:
        self.path, self.archive = path, archive
        self.members: dict[str, zipfile.ZipInfo] = {}
        for info in archive.infolist():
            member = PureWindowsPath(info.filename)  # knows both slashes, and drives
            if member.anchor or ".." in member.parts:
                raise InputError(f"{path}: {info.filename!r} leads out of its folder, which is refused.")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise InputError(f"{path}: {info.filename!r} is a link, which is refused.")
            if member.name not in names or info.is_dir():
                continue
            if member.name in self.members:
                raise InputError(f"{path} holds {member.name} twice, so it is unclear which one counts.")
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise InputError(f"{path}: {info.filename!r} is encrypted or not packed by deflate; pack it anew.")
            self.members[member.name] = info
        missing = [name for name in names if name not in self.members]
        if missing:
            raise InputError(f"{path} lacks {', '.join(missing)}; it is not the data set, or not all of it.")
        declared = sum(info.file_size for info in self.members.values())
        if declared > MAX_BYTES:
            raise InputError(f"{path} declares {declared} bytes, more than the {MAX_BYTES} that are unpacked.")

    def read(self, name: str) -> Iterator[bytes]:
        """Yield a file's bytes: never more than declared, and at their end zipfile compares the CRC."""
        try:
            with self.archive.open(self.members[name]) as member:
                while chunk := member.read(CHUNK):
                    yield chunk
        except ZIP_ERRORS as error:
            raise InputError(f"{self.path}: {name} is damaged ({error}); take another copy.") from error


class SmallReads(io.FileIO):
    """A file of which one call reads a megabyte at most: zipfile would load a directory of any declared size."""

    def read(self, size: int | None = -1, /) -> Any:
        if size is not None and size > CHUNK:
            raise zipfile.BadZipFile(f"its directory takes more than {CHUNK} bytes")
        return super().read(size)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip, and turn whatever other bytes make zipfile raise into InputError."""
    with SmallReads(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except ZIP_ERRORS as error:
            raise InputError(f"{path} is not a zip, or not all of one ({error}); take another copy.") from error
        yield archive
