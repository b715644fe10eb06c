"""Where shapes come from: a folder or a zip archive, read in place."""

import os
import re
import zipfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from dgcnn_ws.datasets.shape_file import MAX_FILE_BYTES, READERS, check_size, not_read, read_bytes, with_its_buffers
from dgcnn_ws.errors import InputError

PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile puts no bound on the memory that others take
# What lies beside shapes and is none: materials, pictures, buffers, texts.
COMPANION = re.compile(
    r"(?i)(readme|licen[cs]e|copying|changelog|citation)[^/]*|"
    r".*\.(mtl|bin|png|jpe?g|bmp|tga|tiff?|gif|webp|dds|hdr|md|json|ya?ml|html?|pdf|log|url|ini|db)"
)


def list_names(source: Path) -> list[PurePosixPath]:
    """The files of a folder or zip archive, sorted; hidden ones are left out, links to folders followed."""
    if source.is_dir():
        names = [PurePosixPath(path.relative_to(source).as_posix()) for path in walk(source)]
    elif source.suffix.lower() == ".zip" and source.is_file():
        names = list(list_members(source))
    else:
        raise InputError(f"{source} is neither a folder nor a zip file. Name the one that holds the class folders.")
    return sorted(name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.parts))


def walk(folder: Path) -> list[Path]:
    """The files of a folder at any depth, in no order; a linked folder is entered once, so that no circle is."""
    files: list[Path] = []
    entered: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        entered.add(os.path.realpath(here))
        folders[:] = [name for name in folders if os.path.realpath(os.path.join(here, name)) not in entered]
        files += [Path(here, name) for name in names]
    return files


def list_folders(source: Path) -> list[PurePosixPath]:
    """The folders of a folder, at any depth; of an archive none, which stores files alone."""
    if not source.is_dir():
        return []
    found = (path for path in source.rglob("*") if path.is_dir())
    return [PurePosixPath(path.relative_to(source).as_posix()) for path in found]


def is_shape(name: PurePosixPath) -> bool:
    """Whether a file's name says that it is a shape which can be read."""
    return name.suffix.lower() in READERS and not COMPANION.fullmatch(name.name)


def why_no_shape(name: PurePosixPath) -> str | None:
    """Why a file is not tried; None where it is no shape at all, but what lies beside them."""
    if COMPANION.fullmatch(name.name):
        return None
    return not_read(name.suffix) if name.suffix else "its name has no ending"


@lru_cache(maxsize=1)
def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, opened once in each process: its list of members may be long."""
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # of a damaged list of members, any
        raise InputError(f"{path} is not a zip file, or is damaged; fetch it again.") from error


@lru_cache(maxsize=1)
def list_members(path: Path) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of an archive, by names with forward slashes, whatever system wrote them."""
    members = {}
    for info in open_zip(path).infolist():
        text = info.filename.replace("\\", "/")
        if text.endswith("/") or not text:  # not `is_dir`, which raises where a member has no name
            continue
        name = PurePosixPath(text)
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"{path}: {text!r} leads out of the archive, which is refused.")
        members[name] = info
    return members


def read_member(source: Path, name: PurePosixPath) -> bytes:
    """The contents of one file of the source, within `MAX_FILE_BYTES`; nothing is unpacked."""
    if source.is_dir():
        return read_bytes(source / name)
    try:
        member = list_members(source)[name]
        if member.compress_type not in PACKED:
            raise InputError(f"{name} in {source.name} is not packed by deflate; pack it anew.")
        with open_zip(source).open(member) as file:
            data = check_size(file.read(MAX_FILE_BYTES + 1), name)
        return with_its_buffers(data, name, lambda other: read_member(source, name.parent / PurePosixPath(other)))
    except InputError:
        raise
    except Exception as error:  # of damaged, encrypted or unknown compression, any
        raise InputError(f"{name} cannot be read from {source.name}; it is damaged or encrypted.") from error
