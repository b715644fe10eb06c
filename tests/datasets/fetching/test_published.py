"""What is wrong with a copy of a published data set is found and named; ModelNet40's facts hang together."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dgcnn_ws.datasets import ModelNet40
from dgcnn_ws.datasets.fetching.published import MODELNET40, Published


def test_modelnet40_has_seven_files_and_forty_classes_in_alphabetical_order() -> None:
    assert len(MODELNET40.train) == 5 and len(MODELNET40.test) == 2 and len(set(MODELNET40.files.values())) == 7
    assert len(MODELNET40.class_names) == 40
    assert list(MODELNET40.class_names) == sorted(MODELNET40.class_names)
    assert (MODELNET40.class_names[0], MODELNET40.class_names[-1]) == ("airplane", "xbox")


def test_a_good_copy_has_no_damage_and_can_be_read(miniature: Published, copy: Path) -> None:
    assert miniature.damage(copy) == {}
    clouds = ModelNet40(copy.parent, "trainval", num_points=4)
    assert clouds.labels.tolist() == [0, 1, 2, 2, 1, 0] and clouds.class_names == list(miniature.class_names)


def test_lists_with_their_authors_directories_are_good(miniature: Published, copy: Path) -> None:
    (copy / "test_files.txt").write_text(f"data/{copy.name}/ply_data_test0.h5\r\n\n")
    assert miniature.damage(copy) == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train_files.txt", b"ply_data_train1.h5\nply_data_train0.h5\n"),  # another order, another validation split
        ("train_files.txt", b"ply_data_train0.h5\n"),
        ("shape_names.txt", b"cup\nchair\nlamp\n"),
        ("shape_names.txt", b"\xff\xfe\x00"),
        ("ply_data_test0.h5", b""),
    ],
)
def test_each_damage_is_named(miniature: Published, copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    assert list(miniature.damage(copy)) == [name]


def test_one_flipped_bit_is_damage(miniature: Published, copy: Path) -> None:
    path = copy / "ply_data_train1.h5"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert hashlib.md5(content).hexdigest() != miniature.train[path.name]
    assert "MD5 differs" in miniature.damage(copy)[path.name]


def test_a_folder_that_does_not_exist_lacks_everything(miniature: Published, tmp_path: Path) -> None:
    damage = miniature.damage(tmp_path / "nowhere")
    assert damage.keys() == miniature.files.keys() | miniature.lists.keys()
    assert set(damage.values()) == {"is missing"}


def test_lists_are_written_as_the_loader_reads_them(
    miniature: Published, copy: Path, write_file: Callable[..., None]
) -> None:
    for name in miniature.lists:
        (copy / name).unlink()
    assert set(miniature.damage(copy)) == set(miniature.lists)
    miniature.write_lists(copy)
    assert miniature.damage(copy) == {}
