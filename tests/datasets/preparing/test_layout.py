"""What folders mean: which files are shapes, of which class and split, and what is named instead."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from dgcnn_ws.datasets.preparing.layout import Listing, find_entries
from dgcnn_ws.datasets.preparing.shape_source import read_member
from dgcnn_ws.errors import InputError

Fill = Callable[..., Path]

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


def described(listing: Listing) -> list[tuple[str, str, str | None]]:
    return [(entry.path.name, entry.class_name, entry.split) for entry in listing.entries]


@pytest.mark.parametrize("archive", [False, True])
def test_princetons_layout(fill: Fill, archive: bool) -> None:
    source = fill(PRINCETON, archive)
    listing = find_entries(source)
    assert described(listing) == [
        ("bed_0002.off", "bed", "test"),
        ("bed_0001.off", "bed", "train"),
        ("night_stand_0001.OFF", "night_stand", "train"),
    ]
    assert read_member(source, listing.entries[0].path) == b"ModelNet10/bed/test/bed_0002.off"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["b/1.ply", "a/2.xyz", "a/1.npz"], [("1.npz", "a", None), ("2.xyz", "a", None), ("1.ply", "b", None)]),
        (["x/test/a/1.glb", "x/train/b/1.glb"], [("1.glb", "a", "test"), ("1.glb", "b", "train")]),
        (["Testing/a/1.stl", "Training/b/1.stl"], [("1.stl", "a", "test"), ("1.stl", "b", "train")]),
        # ShapeNet's: a folder for each shape
        (["a/1f/models/m.obj", "a/2e/models/m.obj", "b/3d/m.obj"], [("m.obj", "a", None)] * 2 + [("m.obj", "b", None)]),
        (["train/a/1f/m.obj", "test/b/2e/m.obj"], [("m.obj", "b", "test"), ("m.obj", "a", "train")]),
    ],
)
def test_other_layouts(fill: Fill, names: list[str], expected: list[object]) -> None:
    assert described(find_entries(fill(names))) == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.doc"], "holds no shapes"),
        (["1.off"], "found files in no folder"),
        (["a/1.off"], "found files in one folder alone, 'a'"),
        (["chair/train/1.off", "chair/test/2.off"], "do not fit in"),
        (["train/chair/1.off", "test/chair/2.off"], "found one class, 'chair'"),
        (["a/1.off", "b/left/1.off", "b/left/2.off", "b/right/1.off"], "b/left does not fit in: it holds 2 shapes"),
        (["a/1.off", "b/train/1.off"], "some classes have train and test folders"),
        (["a/1.off", "b\n/1.off"], "cannot name a class"),
    ],
)
def test_layouts_that_cannot_be_understood(fill: Fill, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_entries(fill(names))


def test_what_is_no_shape_is_named_or_counted(fill: Fill) -> None:
    names = ["a/1.obj", "a/1.mtl", "a/1.fbx", "b/2.obj", "b/notes", "c/3.fbx", "d/e/4.fbx", "more.obj", "README.md"]
    listing = find_entries(fill(names))
    assert [entry.class_name for entry in listing.entries] == ["a", "b"]
    assert {(line["file"], line["reason"]) for line in listing.left_out} == {
        ("a/1.fbx", ".fbx is not read: export it as .glb"),
        ("b/notes", "its name has no ending"),
        ("c/3.fbx", ".fbx is not read: export it as .glb"),
        ("d/e/4.fbx", ".fbx is not read: export it as .glb"),
        ("more.obj", "it lies beside the class folders"),
    }
    assert listing.empty == ["c", "d"] and listing.beside == {".mtl": 1, ".md": 1}


def test_an_empty_folder_may_have_been_a_class(fill: Fill) -> None:
    source = fill(["a/1.off", "b/1.off"])
    (source / "c").mkdir()
    assert find_entries(source).empty == ["c"]


@pytest.mark.parametrize(("names", "goal"), [(["train", "val", "test"], "train"), (["train", "valid"], "test")])
def test_a_validation_folder_loses_nothing(fill: Fill, names: list[str], goal: str) -> None:
    listing = find_entries(fill([f"{split}/{name}/{i}.xyz" for split in names for name in "ab" for i in range(2)]))
    assert len(listing.entries) == 4 * len(names)
    moved = [entry.split for entry in listing.entries if "val" in entry.path.parts[0]]
    assert moved == [goal] * 4
    assert len(listing.notes) == 1 and "4 shapes of val" in listing.notes[0]


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("line", ["{0}_{1}", "{0}/{0}_{1}.txt", "data/{0}/{0}_{1}"])
def test_official_lists_are_followed(fill: Fill, tmp_path: Path, line: str, archive: bool) -> None:
    shapes = [(name, i) for name in ("bed", "chair", "desk") for i in range(4)]
    source = fill([f"{name}/{name}_{i}.txt" for name, i in shapes])
    lists = {  # those of a subset lie beside those of all, as in modelnet40_normal_resampled
        "modelnet40_train.txt": [line.format(*shape) for shape in shapes if shape[1] != 1],
        "modelnet40_test.txt": [line.format(*shape) for shape in shapes if shape[1] == 1 and shape[0] != "desk"],
        "modelnet10_train.txt": [line.format(*shape) for shape in shapes if shape[1] and shape[0] == "bed"],
        "modelnet10_test.txt": ["bed_0", "gone_1"],
        "modelnet40_shape_names.txt": ["bed", "chair", "desk"],
        "filelist.txt": ["bed/bed_0.txt"],
    }
    for name, lines in lists.items():
        (source / name).write_text("\r\n".join(lines) + "\r\n")
    if archive:
        with zipfile.ZipFile(tmp_path / "lists.zip", "w") as file:
            for path in source.rglob("*.txt"):
                file.write(path, Path("modelnet40") / path.relative_to(source))
        source = tmp_path / "lists.zip"
    listing = find_entries(source)
    assert {(e.path.stem, e.split) for e in listing.entries if "_1" in e.path.stem} == {
        ("bed_1", "test"),
        ("chair_1", "test"),
    }
    assert len(listing.entries) == 11
    (left,) = listing.left_out
    assert left["file"].endswith("desk/desk_1.txt") and "none of modelnet40_test.txt" in left["reason"]
    assert "lists modelnet40_test.txt, modelnet40_train.txt" in listing.notes[0]


def test_lists_that_name_nothing_here_decide_nothing(fill: Fill) -> None:
    listing = find_entries(fill(["a/1.off", "b/1.off", "train.txt", "test.txt"]))
    assert [entry.split for entry in listing.entries] == [None, None] and not listing.left_out
