"""Files in, data set out: what a user of `prepare` relies on."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dgcnn_ws.datasets import FolderClouds
from dgcnn_ws.datasets.preparing.prepare import Settings, prepare
from dgcnn_ws.errors import InputError

SETTINGS = Settings(num_points=64, up="y", test_fraction=0.25)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight, boxes flat or tall, in several formats."""
    root = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for name, height in (("flat", 0.1), ("tall", 10.0)):
        (root / name).mkdir()
        for i in range(8):
            box = trimesh.creation.box(extents=(1, height * rng.uniform(0.5, 2), 1))
            box.export(root / name / f"{i}.{('off', 'ply', 'stl', 'glb')[i % 4]}")
    return root


def test_a_data_set_that_can_be_read(source: Path, tmp_path: Path) -> None:
    report = prepare(source, tmp_path / "out", SETTINGS)
    assert report.written == {"train": 12, "test": 4} and not report.skipped
    train, test = (FolderClouds(tmp_path / "out", split, num_points=64) for split in ("trainval", "test"))
    assert train.class_names == test.class_names == ["flat", "tall"]
    assert np.bincount(train.labels).tolist() == [6, 6] and np.bincount(test.labels).tolist() == [2, 2]
    for clouds in (train, test):
        assert clouds.points.mean(1).abs().max() < 1e-6
        assert clouds.points.norm(dim=2).amax(1).sub(1).abs().max() < 1e-6
        heights = clouds.points[..., 1].amax(1) - clouds.points[..., 1].amin(1)
        assert ((heights > 1) == (clouds.labels == 1)).all()  # labels belong to their clouds
    names = (tmp_path / "out/ply_data_test0_names.txt").read_text().split()
    assert [train.class_names[label] for label in test.labels] == [name.split("/")[0] for name in names]


def test_the_same_bytes_from_any_number_of_processes_and_from_a_zip(source: Path, tmp_path: Path) -> None:
    prepare(source, tmp_path / "one", SETTINGS)
    prepare(source, tmp_path / "two", SETTINGS, jobs=2)
    archive = tmp_path / f"{source.name}.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in source.rglob("*.*"):
            file.write(path, Path("deeper") / path.relative_to(source))
    prepare(archive, tmp_path / "zip", SETTINGS)
    one = FolderClouds(tmp_path / "one", "trainval", 64)
    for other in ("two", "zip"):
        clouds = FolderClouds(tmp_path / other, "trainval", 64)
        assert (clouds.points == one.points).all() and (clouds.labels == one.labels).all()
    prepare(source, tmp_path / "seed", Settings(64, "y", 0.25, seed=1))
    assert (FolderClouds(tmp_path / "seed", "trainval", 64).points != one.points).any()


def test_the_sources_own_split_is_kept_and_long_splits_take_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dgcnn_ws.datasets.preparing.prepare.CLOUDS_PER_FILE", 2)
    for class_name in ("a", "b"):
        for split, count in (("train", 3), ("test", 1)):
            (tmp_path / "source" / class_name / split).mkdir(parents=True)
            for i in range(count):
                points = np.random.default_rng(i).normal(size=(80, 3))
                np.save(tmp_path / "source" / class_name / split / f"{i}.npy", points)
    report = prepare(tmp_path / "source", tmp_path / "out", SETTINGS)
    assert report.written == {"train": 6, "test": 2} and report.repeated == 0
    assert (tmp_path / "out/train_files.txt").read_text().split() == [f"ply_data_train{i}.h5" for i in range(3)]
    assert FolderClouds(tmp_path / "out", "trainval", 64).labels.tolist() == [0, 0, 0, 1, 1, 1]


def test_more_classes_than_a_byte_counts(tmp_path: Path) -> None:
    for i in range(300):
        for split in ("train", "test"):
            folder = tmp_path / "source" / f"{i:03d}" / split
            folder.mkdir(parents=True)
            (folder / "a.xyz").write_text(f"0 0 0\n1 {i} 0\n0 1 1\n")
    report = prepare(tmp_path / "source", tmp_path / "out", Settings(4))
    assert report.repeated == 600
    assert FolderClouds(tmp_path / "out", "test", 4).labels.tolist() == list(range(300))


def test_short_clouds_repeat_evenly(tmp_path: Path) -> None:
    for class_name in ("a", "b"):
        (tmp_path / "source" / class_name).mkdir(parents=True)
        for i in range(2):
            np.save(tmp_path / "source" / class_name / f"{i}.npy", np.random.default_rng(i).normal(size=(20, 3)))
    assert prepare(tmp_path / "source", tmp_path / "out", SETTINGS).repeated == 4
    for cloud in FolderClouds(tmp_path / "out", "trainval", 64).points:
        _, counts = np.unique(cloud, axis=0, return_counts=True)
        assert sorted(counts.tolist()) == [3] * 16 + [4] * 4


def copy_with_damage(source: Path, root: Path) -> Path:
    for path in source.rglob("*.*"):
        copy = root / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (root / "flat/0.off").write_bytes(b"OFF\n9 9 9\n")
    (root / "tall/new.npy").write_bytes(b"")
    return root


@pytest.mark.parametrize("jobs", [1, 2])
def test_broken_files_are_named_and_left_out(source: Path, tmp_path: Path, jobs: int) -> None:
    broken = copy_with_damage(source, tmp_path / "broken")
    report = prepare(broken, tmp_path / "out", SETTINGS, jobs)
    assert [line["file"] for line in report.skipped] == ["flat/0.off", "tall/new.npy"]
    assert sum(report.written.values()) == 15
    assert "flat/0.off" in (tmp_path / "out/prepare.json").read_text()
    with pytest.raises(InputError, match=r"flat/0\.off cannot be read"):
        prepare(broken, tmp_path / "strict", SETTINGS, jobs, strict=True)
    assert not (tmp_path / "strict").exists()


def test_nothing_is_left_where_nothing_can_be_made(source: Path, tmp_path: Path) -> None:
    for i, class_name in enumerate(("a", "b")):
        (tmp_path / "source" / class_name).mkdir(parents=True)
        for name in (f"{i}.off", "other.off"):
            (tmp_path / "source" / class_name / name).write_text("no mesh")
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match="no train cloud"):
        prepare(tmp_path / "source", tmp_path / "out", SETTINGS)
    for settings in (Settings(0), Settings(seed=-1), Settings(test_fraction=1.0)):
        with pytest.raises(InputError, match="must"):
            prepare(source, tmp_path / "out", settings)
    with pytest.raises(InputError, match="already exists"):
        prepare(source, tmp_path / "source", SETTINGS)
    assert set(tmp_path.iterdir()) == before


def test_a_line_a_class_says_what_became_of_its_files(source: Path, tmp_path: Path) -> None:
    broken = copy_with_damage(source, tmp_path / "broken")
    for name in ("flat/extra.fbx", "odd/1.fbx", "extra.off"):
        (broken / name).parent.mkdir(exist_ok=True)
        (broken / name).write_text("")
    (broken / "none").mkdir()
    scan = np.random.default_rng(0).normal(size=(70, 3))
    scan[:6] = np.nan
    np.save(broken / "tall/scan.npy", scan)
    report = prepare(broken, tmp_path / "out", SETTINGS)
    assert [line.split(maxsplit=4) for line in report.lines()][1:] == [
        ["flat", "9", "5", "2", "1: .fbx is not read: export it as .glb; 1: cannot be read"],
        ["tall", "10", "7", "2", "1: cannot be read"],
        ["none", "0", "0", "0", "an empty folder"],
        ["odd", "1", "0", "0", "1: .fbx is not read: export it as .glb"],
    ]
    assert report.dropped == 2 + 3 + 2  # unreadable, not read or beside the classes, without a shape
    said = json.loads((tmp_path / "out/prepare.json").read_text())
    assert {line["file"] for line in said["left_out"]} == {"flat/extra.fbx", "odd/1.fbx", "extra.off"}
    assert said["empty_classes"] == ["none", "odd"]
    assert [line["note"] for line in said["notes"]] == ["tall/scan.npy: 6 of 70 rows are NaN or zeros: left out"]


def test_a_class_of_one_shape_is_said_to_be_untested(source: Path, tmp_path: Path) -> None:
    copy = copy_with_damage(source, tmp_path / "copy")
    (copy / "one").mkdir()
    (copy / "one/1.off").write_bytes((source / "flat/0.off").read_bytes())
    lines = list(prepare(copy, tmp_path / "out", SETTINGS).lines())
    assert lines[2].split(maxsplit=4) == ["one", "1", "1", "0", "none for test"]


def test_classes_of_which_no_file_can_be_read(source: Path, tmp_path: Path) -> None:
    copy = copy_with_damage(source, tmp_path / "copy")
    (copy / "lost").mkdir()
    for number in range(2):
        (copy / "lost" / f"{number}.off").write_text("OFF")
    lines = list(prepare(copy, tmp_path / "out", SETTINGS).lines())
    assert lines[2].split(maxsplit=4) == ["lost", "2", "0", "0", "2: cannot be read; none for train or test"]
    for file in (copy / "tall").iterdir():
        file.write_text("OFF")
    for file in (copy / "lost").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"one class alone, 'flat'.* 10 files cannot be read\. The first: flat/0"):
        prepare(copy, tmp_path / "none", SETTINGS)
    assert not (tmp_path / "none").exists()
