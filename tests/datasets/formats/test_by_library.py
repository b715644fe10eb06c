"""Formats that a library reads, in a process of its own: STEP and E57, each from a file that another program wrote."""

import sys
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from dgcnn_ws.datasets.shape_file import read_shape
from dgcnn_ws.datasets.solids import sample_surface
from dgcnn_ws.errors import InputError

SAMPLES = Path(__file__).parent / "samples"
CAN, SCANS = ((SAMPLES / name).read_bytes() for name in ("can.step", "two_scans.e57"))


@pytest.mark.parametrize("name", ["can.step", "can.STP"])
def test_step_is_cut_into_triangles_near_its_surface(name: str) -> None:
    pytest.importorskip("cascadio")
    triangles = read_shape(CAN, PurePosixPath(name)) * 1000  # a cylinder, radius 0.5 and height 2 mm, on the origin
    points, _ = sample_surface(triangles, 2000, np.random.default_rng(0))
    radius = np.linalg.norm(points[:, :2], axis=1)
    on_ends = (np.abs(points[:, 2]) < 1e-6) | (np.abs(points[:, 2] - 2) < 1e-6)
    assert np.abs(radius[~on_ends] - 0.5).max() < 0.01 and radius.max() < 0.501
    assert on_ends.mean() == pytest.approx(0.5 / (0.5 + 2), abs=0.03)  # of the area: two discs, and what is round


def test_a_step_that_is_cut_short_is_refused() -> None:
    pytest.importorskip("cascadio")
    for data, reason in (
        (CAN[:-300], "it is no STEP file, or cut short"),
        (b"x\nEND-ISO-10303-21;", "finds nothing in"),
    ):
        with pytest.raises(InputError, match=reason):
            read_shape(data, PurePosixPath("a.step"))
    with pytest.raises(InputError, match="finds nothing in it that it can read as IGES"):
        read_shape(CAN, PurePosixPath("a.igs"))


def test_e57_scans_stand_where_their_poses_put_them() -> None:
    pytest.importorskip("e57")
    found = read_shape(SCANS, PurePosixPath("a.e57"))
    first = np.stack([np.arange(5.0), np.zeros(5), np.ones(5)], axis=1)
    second = np.array([[10, 20, 31], [10, 22, 31.0]])  # turned, moved, without the invalid point
    np.testing.assert_allclose(found, np.concatenate([first, second]), atol=1e-9)
    with pytest.raises(InputError, match=r"a\.e57 cannot be read as \.e57"):
        read_shape(SCANS[:2000], PurePosixPath("a.e57"))


@pytest.mark.parametrize("ending, library", [("step", "cascadio"), ("iges", "cascadio"), ("e57", "e57")])
def test_a_missing_library_is_named(ending: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(InputError, match=rf"\.{ending} needs {library}: pip install 'dgcnn_ws\[formats\]'"):
        read_shape(CAN, PurePosixPath(f"a.{ending}"))
