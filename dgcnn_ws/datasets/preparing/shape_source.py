"""Where shapes come from: a folder or a zip archive with a folder of files for each class, read in place."""

import os
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from dgcnn_ws.datasets.shape_file import MAX_FILE_BYTES, READERS, check_size, read_bytes, with_its_buffers
from dgcnn_ws.errors import InputError

SPLITS = ("train", "test")
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile puts no bound on the memory that others take


@dataclass(frozen=True)
class Entry:
    """One shape's file: where it lies in the source, its class, its split where the source says one."""

    path: PurePosixPath
    class_name: str
    split: str | None


def list_names(source: Path) -> list[PurePosixPath]:
    """The files of a folder or zip archive that may be shapes, sorted; hidden ones are left out."""
    if source.is_dir():
        found = (Path(folder, file) for folder, _, files in os.walk(source) for file in files)
        names = [PurePosixPath(path.relative_to(source).as_posix()) for path in found]
    elif source.suffix.lower() == ".zip" and source.is_file():
        # Not `is_dir`, which raises where a member has no name.
        names = [PurePosixPath(name) for name in open_zip(source).namelist() if not name.endswith("/")]
        for name in names:
            if name.is_absolute() or ".." in name.parts:
                raise InputError(f"{source}: {str(name)!r} leads out of the archive, which is refused.")
    else:
        raise InputError(f"{source} is neither a folder nor a zip file. Name the one that holds the class folders.")
    return sorted(
        name
        for name in names
        if name.suffix.lower() in READERS and not any(part.startswith((".", "__MACOSX")) for part in name.parts)
    )


@lru_cache(maxsize=1)
def open_zip(path: Path) -> zipfile.ZipFile:
    """The archive, opened once in each process: its list of members may be long."""
    try:
        return zipfile.ZipFile(path)
    except Exception as error:  # of a damaged list of members, any
        raise InputError(f"{path} is not a zip file, or is damaged; fetch it again.") from error


def read_member(source: Path, name: PurePosixPath) -> bytes:
    """The contents of one file of the source, within `MAX_FILE_BYTES`; nothing is unpacked."""
    if source.is_dir():
        return read_bytes(source / name)
    try:
        if open_zip(source).getinfo(str(name)).compress_type not in PACKED:
            raise InputError(f"{name} in {source.name} is not packed by deflate; pack it anew.")
        with open_zip(source).open(str(name)) as file:
            data = check_size(file.read(MAX_FILE_BYTES + 1), name)
        return with_its_buffers(data, name, lambda other: read_member(source, name.parent / PurePosixPath(other)))
    except InputError:
        raise
    except Exception as error:  # of damaged, encrypted or unknown compression, any
        raise InputError(f"{name} cannot be read from {source.name}; it is damaged or encrypted.") from error


def find_entries(source: Path) -> list[Entry]:
    """The shapes of `<class>/<file>`, `<class>/<train|test>/<file>` or `<train|test>/<class>/<file>`, in order.

    The class folders may lie deeper in the source, all side by side. Files beside them are left out.

    Raises:
        InputError: the source cannot be read, or is laid out otherwise.
    """
    names = list_names(source)
    folders = {name.parent for name in names}
    above = {parent for folder in folders for parent in folder.parents}
    leaves = folders - above
    if not leaves:
        raise InputError(f"{source} holds no shapes: no class folder with files in {', '.join(READERS)}.")
    root = PurePosixPath(os.path.commonpath(leaves))
    entries = []
    for name in names:
        if name.parent not in leaves:
            continue
        parts = name.parent.relative_to(root).parts
        if len(parts) == 2 and parts[1] in SPLITS:
            class_name, split = parts[0], parts[1]
        elif len(parts) == 2 and parts[0] in SPLITS:
            class_name, split = parts[1], parts[0]
        elif len(parts) == 1 and parts[0] not in SPLITS:
            class_name, split = parts[0], None
        else:
            raise InputError(
                f"{source}: {name.parent} does not fit in. Shapes must lie in two or more class folders, as "
                "<class>/<file> or <class>/<train or test>/<file>."
            )
        if not class_name.isprintable() or class_name != class_name.strip():
            raise InputError(f"{source}: {class_name!r} cannot name a class; rename the folder.")
        entries.append(Entry(name, class_name, split))
    if len({entry.split is None for entry in entries}) > 1:
        raise InputError(f"{source}: some classes have train and test folders and some have not; give all or none.")
    return entries
