"""What a folder and a checkpoint say of how their data were prepared, and what is made of wrong answers."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from dgcnn_ws.datasets import FolderClouds, ModelNet40, StreamedClouds
from dgcnn_ws.datasets.frame import PUBLISHED_MODELNET40, Frame, frame_of, read_frame
from dgcnn_ws.errors import InputError


def test_a_folder_from_elsewhere_and_one_from_before(tmp_path: Path) -> None:
    assert read_frame(tmp_path) is None
    before = {"settings": {"num_points": 300, "up": "y", "test_fraction": 0.2, "seed": 0}, "skipped": []}
    (tmp_path / "prepare.json").write_text(json.dumps(before))
    assert read_frame(tmp_path) == Frame("y", 300, "unit_sphere", mirrored=False, fill="repeat", draw="seed")


@pytest.mark.parametrize(
    "content", ["", "no JSON", "[" * 100_000, "[]", '{"settings": 7}', '{"settings": {"up": "y"}}']
)
def test_a_damaged_folder(content: str, tmp_path: Path) -> None:
    (tmp_path / "prepare.json").write_text(content)
    with pytest.raises(InputError, match=r"prepare\.json is damaged"):
        read_frame(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"up": "x"}, "should say up z or y"),
        ({"up": torch.zeros(3)}, "should say up z or y"),
        ({"num_points": 0}, "num_points from 1 to"),
        ({"num_points": True}, "num_points from 1 to"),
        ({"num_points": 10**6000}, "num_points from 1 to"),  # too long for Python to print
        ({"normalization": "unit_box"}, "normalization unit_sphere or none"),
        ({"normalization": None}, "normalization unit_sphere"),
        ({"mirrored": 1}, "mirrored true or false"),
        ({"fill": "zeros"}, "fill repeat or none"),
        ({"draw": ["seed"]}, "draw contents or seed or stored"),
        ({"seed": -1}, "seed from 0"),
        ({"channels": "xyzrgb"}, "channels xyz"),
        ({"radius": [2.0, 1.0]}, "radius: the smallest and the largest"),
        ({"radius": [0.0, float("nan")]}, "radius: the smallest and the largest"),
        ({"radius": [0, 1, 2]}, "radius: the smallest and the largest"),
    ],
)
def test_foreign_values(change: dict[str, Any], message: str) -> None:
    values = {"up": "y", "num_points": 64, "normalization": "unit_sphere"}
    assert frame_of(values, Path("a.pt")) == Frame("y", 64, fill="repeat")
    with pytest.raises(InputError, match=message) as caught:
        frame_of(values | change, Path("a.pt"))
    assert str(caught.value).startswith("a.pt ") and len(str(caught.value)) < 200


def test_a_frame_survives_a_file() -> None:
    for frame in (PUBLISHED_MODELNET40, Frame("y", 7, "none", True, "repeat", "contents", 5, radius=(0.5, 2.0))):
        assert frame_of(json.loads(json.dumps(asdict(frame))), Path("a.pt")) == frame


@pytest.mark.parametrize("streamed", [False, True])
def test_what_clouds_from_elsewhere_say_of_themselves(
    streamed: bool, tmp_path: Path, write_file: Callable[..., None]
) -> None:
    """Clouds of three files, in millimetres or in the unit sphere, under a name of their own or ModelNet40's."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "shape_names.txt").write_text("a\nb\n")
    for i in range(3):
        write_file(folder / f"ply_data_train{i}.h5", [0, 1] * 5, points=40, seed=i)

    def frame(place: Path) -> Frame | None:
        kind = StreamedClouds if streamed else ModelNet40 if place.name.startswith("modelnet40") else FolderClouds
        return kind(place, "train", 32).frame

    found = frame(folder)
    assert found is not None and found.radius is not None and 2 < found.radius[0] < found.radius[1] < 8
    assert (found.num_points, found.normalization, found.mirrored, found.draw) == (40, "none", False, "stored")
    for path in folder.glob("*.h5"):
        with h5py.File(path, "r+") as file:
            points = file["data"][:] - file["data"][:].mean(1, keepdims=True)
            file["data"][...] = points / np.linalg.norm(points, axis=2).max(1)[:, None, None]
    assert frame(folder) == Frame(num_points=40, draw="stored")
    assert frame(folder.rename(tmp_path / ModelNet40.folder)) == Frame(num_points=40, mirrored=True, draw="stored")
