"""What a source's folders mean: which file is a shape of which class and split, and what is none of them."""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dgcnn_ws.datasets.preparing.shape_source import is_shape, list_folders, list_names, read_member, why_no_shape
from dgcnn_ws.datasets.shape_file import READERS
from dgcnn_ws.errors import InputError

SPLITS = ("train", "test")
SPLIT_OF = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLIT_OF |= dict.fromkeys(("val", "valid", "validation", "dev"), "val")
SPLIT_LIST = re.compile(
    r"(.*?)[._-]?(train(?:ing)?|test(?:ing)?|val(?:id(?:ation)?)?)[._-]?(?:list|files|split)?\.(txt|lst|list)"
)
OTHER_LIST = re.compile(
    r"(?i)(.*[._-])?(shape_?names|class(_?names|es)?|categories|labels|file_?list|synsetoffset2category)\.\w+"
)
MAX_LIST_BYTES = 1 << 24


@dataclass(frozen=True)
class Entry:
    """One shape's file: where it lies in the source, its class, its split where the source says one."""

    path: PurePosixPath
    class_name: str
    split: str | None


@dataclass
class Listing:
    """What a source holds.

    Args:
        entries: the shapes, in order.
        left_out: files that might have been meant, and why they are not read: `file`, `class` and `reason`.
        beside: how many files of each ending lie beside the shapes and are none: materials, pictures, texts.
        empty: folders that stand where classes do, and hold no shape.
        notes: sentences on how the layout was understood, where there was a choice.
    """

    entries: list[Entry] = field(default_factory=list)
    left_out: list[dict[str, str]] = field(default_factory=list)
    beside: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def leave_out(self, name: PurePosixPath, class_name: str, reason: str) -> None:
        self.left_out.append({"file": str(name), "class": class_name, "reason": reason})


def find_entries(source: Path) -> Listing:
    """The shapes of `<class>/<file>`, `<class>/<train|val|test>/<file>` or `<train|val|test>/<class>/<file>`.

    The class folders may lie deeper in the source, all side by side, and a shape in a folder of its own within its
    class (`<class>/<id>/models/<file>`). Where two lists beside the class folders name the shapes of a split, as
    modelnet40_train.txt and modelnet40_test.txt do, they are followed.

    Raises:
        InputError: the source cannot be read, or is laid out otherwise.
    """
    names = list_names(source)
    shapes = [name for name in names if is_shape(name)]
    folders = {name.parent for name in shapes}
    leaves = folders - {parent for folder in folders for parent in folder.parents}
    if not leaves:
        raise InputError(f"{source} holds no shapes: no class folder with files in {', '.join(READERS)}.")
    root = PurePosixPath(os.path.commonpath(leaves))
    listing = Listing()
    lists: list[PurePosixPath] = []
    for name in names:
        class_name, split, _ = place(name, root)
        if name.parent == root and SPLIT_LIST.fullmatch(name.name.lower()):
            lists.append(name)
        elif class_name and is_shape(name):
            check_class_name(source, class_name)
            listing.entries.append(Entry(name, class_name, split))
        elif (reason := why_no_shape(name)) is None or (not class_name and OTHER_LIST.fullmatch(name.name)):
            listing.beside[name.suffix.lower() or name.name] += 1
        else:
            listing.leave_out(name, class_name, reason if class_name else "it lies beside the class folders")
    check_nested(source, listing.entries, root)
    if len({entry.class_name for entry in listing.entries}) < 2:
        raise InputError(
            f"{source}: its shapes do not fit in. They must lie in two or more class folders, as <class>/<file>, "
            "<class>/<train or test>/<file> or <train or test>/<class>/<file>; found "
            f"{describe(listing.entries, root)}."
        )
    if len({entry.split is None for entry in listing.entries}) > 1:
        raise InputError(f"{source}: some classes have train and test folders and some have not; give all or none.")
    follow_lists(source, lists, listing)
    settle_validation(listing)
    known = {entry.class_name for entry in listing.entries}
    classes = {place(folder / "file", root)[0] for folder in list_folders(source)} | {
        e["class"] for e in listing.left_out
    }
    listing.empty = sorted(name for name in classes - known if name and not name.startswith("."))
    return listing


def place(name: PurePosixPath, root: PurePosixPath) -> tuple[str, str | None, tuple[str, ...]]:
    """Of a file below `root`: its class (empty where it is in none), its split, and the folders between."""
    if root != PurePosixPath(".") and root not in name.parents:
        return "", None, ()
    parts = list(name.relative_to(root).parts[:-1])
    split = None
    for depth in (0, 1):
        if len(parts) > depth and parts[depth].lower() in SPLIT_OF:
            split = SPLIT_OF[parts.pop(depth).lower()]
            break
    return (parts[0], split, tuple(parts[1:])) if parts else ("", split, ())


def check_class_name(source: Path, name: str) -> None:
    if not name.isprintable() or name != name.strip():
        raise InputError(f"{source}: {name!r} cannot name a class; rename the folder.")


def check_nested(source: Path, entries: list[Entry], root: PurePosixPath) -> None:
    """Raise InputError where a folder within a class holds several shapes, so that it may be a class of its own."""
    within = Counter((entry.class_name, inner[0]) for entry in entries if (inner := place(entry.path, root)[2]))
    for (class_name, folder), count in within.items():
        if count > 1 and folder != "models":
            raise InputError(
                f"{source}: {class_name}/{folder} does not fit in: it holds {count} shapes, so it may be a class of "
                f"its own or a part of {class_name}. Put all class folders side by side."
            )


def describe(entries: list[Entry], root: PurePosixPath) -> str:
    names = sorted({entry.class_name for entry in entries})
    if names:
        return f"one class, {names[0]!r}"
    return "files in no folder" if root == PurePosixPath(".") else f"files in one folder alone, {str(root)!r}"


def follow_lists(source: Path, lists: list[PurePosixPath], listing: Listing) -> None:
    """Give the entries the splits that the fullest set of lists says, unless their folders say one."""
    sets: dict[str, dict[str, PurePosixPath]] = {}
    for name in lists:
        match = SPLIT_LIST.fullmatch(name.name.lower())
        if match:
            sets.setdefault(match[1], {})[SPLIT_OF.get(match[2], "val")] = name
    best: tuple[int, str, dict[PurePosixPath, str], int] = (0, "", {}, 0)
    if listing.entries[0].split is None:
        for stem, found in sets.items():
            if len(found) > 1:
                splits, missing = match_lists(source, found, listing.entries)
                best = max(best, (len(splits), stem, splits, missing), key=lambda item: item[0])
    count, stem, splits, missing = best
    for name in lists:
        if count == 0 or name not in sets[stem].values():
            listing.beside[name.name] += 1
    if count == 0:
        return
    used = sorted(path.name for path in sets[stem].values())
    kept = []
    for entry in listing.entries:
        if entry.path in splits:
            kept.append(Entry(entry.path, entry.class_name, splits[entry.path]))
        else:
            listing.leave_out(entry.path, entry.class_name, f"none of {', '.join(used)} names it")
    listing.entries = kept
    listing.notes.append(
        f"the split is that of the lists {', '.join(used)}" + f"; {missing} of their lines name no file" * (missing > 0)
    )


def match_lists(
    source: Path, found: dict[str, PurePosixPath], entries: list[Entry]
) -> tuple[dict[PurePosixPath, str], int]:
    """The split of each file that lists name, with or without its folder and ending; and how many lines name none."""
    by_name: dict[str, list[PurePosixPath]] = {}
    for entry in entries:
        stems = {entry.path.name, entry.path.stem}
        for stem in stems | {f"{entry.class_name}/{stem}" for stem in stems}:
            by_name.setdefault(stem, []).append(entry.path)
    splits: dict[PurePosixPath, str] = {}
    missing = 0
    for split, path in found.items():
        data = read_member(source, path)
        if len(data) > MAX_LIST_BYTES:
            return {}, 0
        for line in data.decode("utf-8-sig", "replace").splitlines():
            words = "/".join(line.strip().replace("\\", "/").split("/")[-2:])
            paths = by_name.get(words) or by_name.get(words.rpartition("/")[2], [])
            if words and len(paths) != 1:
                missing += 1
            for name in paths if len(paths) == 1 else ():
                splits.setdefault(name, split)
    return splits, missing


def settle_validation(listing: Listing) -> None:
    """A data set has train and test: validation goes to train, of which training takes its own, or stands for test."""
    counts = Counter(entry.split for entry in listing.entries)
    if not counts["val"]:
        return
    goal = "train" if counts["test"] else "test"
    listing.entries = [
        Entry(entry.path, entry.class_name, goal) if entry.split == "val" else entry for entry in listing.entries
    ]
    listing.notes.append(
        f"the {counts['val']} shapes of val are stored with train: training draws its validation from there"
        if goal == "train"
        else f"there is no test, so the {counts['val']} shapes of val are stored as test"
    )
