"""From a shape to a network's input: what is drawn, where it lies, what is refused; one shape, one input."""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from dgcnn_ws.datasets import FolderClouds
from dgcnn_ws.datasets.frame import PUBLISHED_MODELNET40, Frame, as_stored
from dgcnn_ws.datasets.network_input import network_input
from dgcnn_ws.datasets.preparing.prepare import Settings, prepare
from dgcnn_ws.datasets.shape_file import load_shape, read_bytes
from dgcnn_ws.errors import InputError

Y_UP = Frame("y", 300, draw="contents")


def cloud(count: int = 300, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3))


def as_drawn(points: np.ndarray) -> np.ndarray:
    """Points in an order of their own, so that sets of them can be compared."""
    return points[np.lexsort(points.T)]


def test_points_are_spread_by_area_and_normalised() -> None:
    # Two squares of sides 1 and 3, far apart along x: nine times the points on one of them.
    small, large = (trimesh.creation.box(extents=(s, s, 1e-9)) for s in (1, 3))
    large.apply_translation((1e4, 0, 0))
    points = network_input((small + large).triangles, replace(Y_UP, num_points=20000), 20000)
    assert points.shape == (20000, 3) and points.dtype == np.float32
    assert np.allclose(points.mean(0, dtype=np.float64), 0, atol=1e-6)
    assert np.linalg.norm(points, axis=1).max() == pytest.approx(1)
    assert (points[:, 0] > 0).mean() == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize(
    ("up", "mirrored", "matrix"),
    [
        ("z", False, [[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
        ("z", True, [[1, 0, 0], [0, 0, 1], [0, 1, 0]]),  # as the published ModelNet40 has Princeton's meshes
        ("y", False, np.eye(3)),
        ("y", True, [[1, 0, 0], [0, 1, 0], [0, 0, -1]]),
    ],
)
def test_what_points_up_in_a_file_points_up_in_the_cloud(up: str, mirrored: bool, matrix: list[list[int]]) -> None:
    cone = trimesh.creation.cone(radius=0.5, height=3)  # its tip points along z
    cone.apply_translation((10, 20, 30))
    given = cone.triangles if up == "z" else cone.triangles[..., [0, 2, 1]] * (1, 1, -1)
    points = network_input(given, Frame(up, 4096, mirrored=mirrored, draw="seed"), 4096)
    assert points[np.linalg.norm(points, axis=1).argmax(), 1] > 0.9
    as_it_is = network_input(given, Frame("y", 4096, draw="seed"), 4096)
    assert np.allclose(points, as_it_is @ np.transpose(matrix))
    assert np.linalg.det(matrix) == (-1 if mirrored else 1)  # a shape of one's own is turned, not mirrored


def test_clouds_give_their_own_points_each_once() -> None:
    drawn = network_input(cloud(), replace(Y_UP, num_points=200), 200)
    assert len(np.unique(drawn, axis=0)) == 200
    everything = network_input(cloud(), replace(Y_UP, num_points=1000), 1000)
    centred = cloud() - cloud().mean(0)
    expected = centred / np.linalg.norm(centred, axis=1).max()
    assert np.allclose(as_drawn(everything), as_drawn(expected), atol=1e-7)


def test_short_clouds_are_filled_up_as_the_frame_says() -> None:
    few = cloud(20)
    assert network_input(few, Y_UP, 100).shape == (20, 3)
    filled = network_input(few, replace(Y_UP, fill="repeat"), 250)
    _, counts = np.unique(filled, axis=0, return_counts=True)
    assert sorted(counts.tolist()) == [12] * 10 + [13] * 10
    assert np.array_equal(filled[:20], network_input(few, Y_UP, 100))


def test_normalised_over_all_that_are_drawn_not_over_those_that_are_seen() -> None:
    whole = network_input(cloud(5000), Y_UP, 300)
    for seen in (1, 37, 299):
        assert np.array_equal(network_input(cloud(5000), Y_UP, seen), whole[:seen])
    more = network_input(cloud(5000), Y_UP, 700)  # than the frame draws
    assert more.shape == (700, 3) and np.allclose(more.mean(0), 0, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_any_scale_gives_the_same_cloud(scale: float) -> None:
    frame = Frame("y", 50)
    drawn = network_input(cloud(50) * scale, frame, 50)
    assert np.allclose(drawn, network_input(cloud(50), frame, 50), atol=1e-6)


def test_coordinates_that_training_took_as_they_are() -> None:
    frame = replace(Y_UP, normalization="none")
    millimetres = 1000 * cloud() + 5
    assert np.array_equal(as_drawn(network_input(millimetres, frame, 300)), as_drawn(millimetres.astype(np.float32)))
    box = trimesh.creation.box(extents=(100, 200, 300))
    box.apply_translation((1000, 0, 0))
    points = network_input(box.triangles, frame, 300)
    assert points.min(0) == pytest.approx([950, -100, -150], abs=8)
    assert points.max(0) == pytest.approx([1050, 100, 150], abs=8)
    with pytest.raises(InputError, match="beyond what float32 holds"):
        network_input(1e300 * cloud(), frame, 300)


@pytest.mark.parametrize("draw", ["contents", "stored"])
def test_the_same_shape_gives_the_same_points_wherever_it_comes_from(draw: str, tmp_path: Path) -> None:
    frame = Frame("z", 64, draw=draw)
    points = cloud().astype(np.float32)
    np.save(tmp_path / "a.npy", points)
    np.savetxt(tmp_path / "b.txt", points.astype(np.float64))
    expected = network_input(points, frame, 50)
    for name in ("a.npy", "b.txt"):
        shape = load_shape(read_bytes(tmp_path / name), tmp_path / name)
        assert np.array_equal(network_input(shape, frame, 50), expected)
    assert not np.array_equal(network_input(points, replace(frame, seed=1), 50), expected)
    assert not np.array_equal(network_input(points[::-1], frame, 50), expected)


def test_a_data_sets_own_cloud_is_what_it_is_bit_for_bit() -> None:
    own = network_input(cloud(), replace(Y_UP, mirrored=True), 300)
    for frame in (Y_UP, PUBLISHED_MODELNET40):
        stored = as_stored(replace(frame, num_points=300))
        assert np.array_equal(network_input(own, stored, 128), own[:128])
    assert np.array_equal(network_input(own, replace(Y_UP, draw="stored"), 128), own[:128])  # normalised once is enough
    assert not np.array_equal(network_input(cloud(), replace(Y_UP, draw="stored"), 300), cloud().astype(np.float32))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (np.zeros((9, 3)), "a.off is a single point"),
        (np.ones((2, 3)), "a.off is a single point"),
        (np.array([[[0, 0, 0], [1, 0, 0], [2.0, 0, 0]]]), "a.off has only triangles without area"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(shape: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network_input(shape, Y_UP, 100, "a.off")


def test_more_points_than_can_be_drawn() -> None:
    with pytest.raises(InputError, match="--num-points"):
        network_input(cloud(), Y_UP, (1 << 20) + 1)


def make_source(root: Path, seed: int) -> list[Path]:
    """Two classes of meshes and clouds, dense, sparse, repeated, far away and tiny."""
    rng = np.random.default_rng(seed)
    for name, i in itertools.product("ab", range(7)):
        (root / name).mkdir(parents=True, exist_ok=True)
        path = root / name / f"{i}"
        points = rng.normal(size=(int(rng.choice([3, 20, 64, 65, 400])), 3)) * 10.0 ** rng.integers(-9, 9)
        box = trimesh.creation.box(extents=rng.uniform(0.1, 9, 3)).apply_translation(rng.normal(size=3) * 100)
        match i:
            case 0:
                np.save(path.with_suffix(".npy"), points.astype(np.float32))
            case 1:
                np.savetxt(path.with_suffix(".xyz"), points)
            case 2:
                np.save(path.with_suffix(".npy"), np.repeat(points, 3, axis=0))
            case _:
                box.export(path.with_suffix([".off", ".obj", ".ply", ".stl"][i - 3]))
    return sorted(path for path in root.rglob("*.*"))


@pytest.mark.parametrize(
    ("num_points", "up", "seed", "mirrored"),
    [(64, "z", 0, False), (64, "y", 3, True), (200, "z", 1, True), (7, "y", 0, False)],
)
def test_predict_feeds_what_evaluate_feeds(num_points: int, up: str, seed: int, mirrored: bool, tmp_path: Path) -> None:
    """Over many files and settings: the stored cloud's first points are the file's, bit for bit."""
    files = make_source(tmp_path / "source", seed)
    settings = Settings(num_points, up, 0.3, seed, mirrored)
    assert not prepare(tmp_path / "source", tmp_path / "set", settings).skipped
    compared = 0
    for split, seen in itertools.product(("trainval", "test"), (num_points, num_points // 2 + 1)):
        clouds = FolderClouds(tmp_path / "set", split, seen)
        names = (tmp_path / f"set/ply_data_{'test' if split == 'test' else 'train'}0_names.txt").read_text().split()
        assert clouds.frame is not None
        for fed, name in zip(clouds.points.numpy(), names, strict=True):
            (path,) = (path for path in files if f"{path.parent.name}/{path.stem}" == name)
            given = network_input(load_shape(read_bytes(path), path), clouds.frame, seen)
            assert given.tobytes() == fed.tobytes()
            compared += 1
    assert compared == 2 * len(files)
