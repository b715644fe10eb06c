"""Normals, colours and intensities, from files of every kind to what a network sees."""

import io
import json
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from dgcnn_ws.datasets import FolderClouds, load_dataset, stream_dataset
from dgcnn_ws.datasets import augment as module
from dgcnn_ws.datasets.augment import augmentation, rotate, rotations
from dgcnn_ws.datasets.frame import FEATURES, Frame, channels_of, features_in, frame_of
from dgcnn_ws.datasets.given import clouds_of
from dgcnn_ws.datasets.network_input import network_input
from dgcnn_ws.datasets.preparing.prepare import Settings, prepare
from dgcnn_ws.datasets.shape_file import load_shape
from dgcnn_ws.errors import InputError

ALL = tuple(FEATURES)
RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(40, 3)).round(4)
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
BYTES = RNG.integers(0, 256, (40, 4))  # red, green, blue, intensity
EXPECTED = np.concatenate([POINTS, NORMALS, BYTES / 255], axis=1)
COLUMNS = ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "intensity")
BYTE_NAMES = COLUMNS[6:]


def rows(order: tuple[str, ...] = COLUMNS) -> str:
    table = dict(zip(COLUMNS, np.concatenate([POINTS, NORMALS, BYTES], axis=1).T, strict=True))
    return "\n".join(
        " ".join(f"{int(v)}" if name in BYTE_NAMES else f"{v:.8f}" for name, v in zip(order, row, strict=True))
        for row in np.stack([table[name] for name in order], axis=1)
    )


def structured() -> np.ndarray:
    kinds = [(name, "u1" if name in BYTE_NAMES else "<f4") for name in COLUMNS]
    table = np.zeros(40, kinds)
    for name, values in zip(COLUMNS, np.concatenate([POINTS, NORMALS, BYTES], axis=1).T, strict=True):
        table[name] = values
    return table


def ply(body: bytes, form: str) -> bytes:
    lines = [f"property {'uchar' if name in BYTE_NAMES else 'float'} {name}" for name in COLUMNS]
    return "\n".join(["ply", f"format {form} 1.0", "element vertex 40", *lines, "end_header\n"]).encode() + body


def pcd(body: bytes, form: str) -> bytes:
    kinds = ["U" if name in BYTE_NAMES else "F" for name in COLUMNS]
    names = " ".join(COLUMNS).replace("nx ny nz", "normal_x normal_y normal_z")
    sizes = " ".join("1" if kind == "U" else "4" for kind in kinds)
    return f"FIELDS {names}\nSIZE {sizes}\nTYPE {' '.join(kinds)}\nPOINTS 40\nDATA {form}\n".encode() + body


def archive(name: str, values: Any) -> bytes:
    buffer = io.BytesIO()
    if name.endswith("npy"):
        np.save(buffer, values)
    else:
        np.savez(buffer, **values)
    return buffer.getvalue()


FILES = {
    "ascii.ply": lambda: ply(rows().encode(), "ascii"),
    "binary.ply": lambda: ply(structured().tobytes(), "binary_little_endian"),
    "ascii.pcd": lambda: pcd(rows().encode(), "ascii"),
    "binary.pcd": lambda: pcd(structured().tobytes(), "binary"),
    "rows.npy": lambda: archive("npy", structured()),
    "beside.npz": lambda: archive(
        "npz",
        {
            "points": POINTS,
            "normals": NORMALS,
            "colors": BYTES[:, :3].astype(np.uint8),
            "intensity": BYTES[:, 3].astype(np.uint8),
        },
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_are_read_by_name(name: str) -> None:
    found = load_shape(FILES[name](), PurePath(name), ALL)
    np.testing.assert_allclose(found, EXPECTED, atol=1e-6)
    np.testing.assert_allclose(
        load_shape(FILES[name](), PurePath(name), ("colour",)), EXPECTED[:, [0, 1, 2, 6, 7, 8]], atol=1e-6
    )
    assert load_shape(FILES[name](), PurePath(name)).shape == (40, 3)


def test_tables_name_them_or_hold_them_alone() -> None:
    shuffled = ("red", "x", "nz", "y", "nx", "z", "green", "ny", "blue", "intensity")
    named = (" ".join(shuffled) + "\n" + rows(shuffled)).encode()
    expected = EXPECTED * ([1.0] * 9 + [255.0])  # text has no types: of an intensity it is not known what 1 would be
    np.testing.assert_allclose(load_shape(named, PurePath("a.csv"), ALL), expected, atol=1e-6)
    np.testing.assert_allclose(load_shape(b"# " + named, PurePath("a.xyz"), ALL), expected, atol=1e-6)
    nameless = rows(COLUMNS[:6]).replace(" ", ",").encode()  # as the resampled ModelNet40 with normals
    np.testing.assert_allclose(load_shape(nameless, PurePath("a.txt"), ("normals",)), EXPECTED[:, :6], atol=1e-6)
    with pytest.raises(InputError, match="6 nameless columns, where coordinates and normals and colour are 9"):
        load_shape(nameless, PurePath("a.txt"), ("normals", "colour"))
    pts = ("40\n" + rows(("x", "y", "z", "intensity", "red", "green", "blue"))).encode()
    np.testing.assert_allclose(
        load_shape(pts, PurePath("a.pts"), ("colour",)), EXPECTED[:, [0, 1, 2, 6, 7, 8]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("feature", "values", "message"),
    [
        ("normals", BYTES[:, :3], r"nameless columns 4 to 6 are no normals"),
        ("normals", 0 * POINTS, "its normals are all zero"),
        ("colour", NORMALS, r"its colours go from -0\.\d+ to 0\.\d+, not from 0 to 1 or to 255"),
        ("colour", BYTES[:, :3] * 1e4, "its colours go from"),
    ],
)
def test_numbers_that_cannot_be_it_are_refused(feature: str, values: np.ndarray, message: str) -> None:
    body = io.StringIO()
    np.savetxt(body, np.concatenate([POINTS, values], axis=1))
    with pytest.raises(InputError, match=message):
        load_shape(body.getvalue().encode(), PurePath("a.xyz"), (feature,))


def test_packed_colours_of_pcd() -> None:
    packed = (BYTES[:, 0] << 16 | BYTES[:, 1] << 8 | BYTES[:, 2]).astype("<u4")
    table = np.concatenate([POINTS.astype("<f4"), packed.view("<f4")[:, None]], axis=1)
    data = b"FIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F F\nPOINTS 40\nDATA binary\n" + table.tobytes()
    np.testing.assert_allclose(load_shape(data, PurePath("a.pcd"), ("colour",))[:, 3:], BYTES[:, :3] / 255, atol=1e-6)


def test_las(tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    pytest.importorskip("lazrs")
    las = laspy.LasData(laspy.LasHeader(point_format=2, version="1.2"))
    las.header.scales = [1e-4] * 3
    las.x, las.y, las.z = POINTS.T
    las.red, las.green, las.blue, las.intensity = (BYTES.T * 257).astype(np.uint16)
    for name in ("a.las", "a.laz"):
        las.write(tmp_path / name)
        found = load_shape((tmp_path / name).read_bytes(), PurePath(name), ("colour", "intensity"))
        np.testing.assert_allclose(found, EXPECTED[:, [0, 1, 2, 6, 7, 8, 9]], atol=1e-6)
        with pytest.raises(InputError, match="no normals"):
            load_shape((tmp_path / name).read_bytes(), PurePath(name), ("normals",))


OFF = b"OFF\n4 2 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n3 0 1 2\n3 0 2 3\n"  # a square in the plane z = 0, seen from above


def test_meshes_have_the_normals_of_their_triangles_and_the_colours_of_their_corners() -> None:
    frame = Frame(num_points=64, draw="contents", channels="xyz,normals")
    square = load_shape(OFF, PurePath("a.off"), ("normals",))
    cloud = network_input(square, frame, 64)
    np.testing.assert_array_equal(cloud[:, 3:], np.tile(np.float32([0, 1, 0]), (64, 1)))  # z is up there, y here
    plain = network_input(square, replace(frame, channels="xyz"), 64)
    np.testing.assert_array_equal(cloud[:, :3], plain)  # the same points
    mirrored = network_input(square, replace(frame, mirrored=True), 64)
    np.testing.assert_array_equal(mirrored[:, 3:], cloud[:, 3:])
    with pytest.raises(InputError, match="colour is not read from"):
        load_shape(OFF, PurePath("a.off"), ("normals", "colour"))
    header = b"ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    header += b"property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 2\n"
    header += b"property list uchar int vertex_indices\nend_header\n"
    coloured = header + b"0 0 0 0 0 0\n2 0 0 255 0 0\n2 2 0 255 255 0\n0 2 0 0 255 0\n3 0 1 2\n3 0 2 3\n"
    features = ("normals", "colour")
    shape = load_shape(coloured, PurePath("a.ply"), features)
    seen = network_input(shape, replace(frame, up="y", normalization="none", channels=channels_of(features)), 64)
    np.testing.assert_allclose(seen[:, 6:8], seen[:, :2] / 2, atol=1e-6)  # red grows with x, green with y
    np.testing.assert_array_equal(seen[:, 8], 0)


def test_normals_of_a_cloud_turn_with_it_and_have_length_one() -> None:
    frame = Frame(num_points=40, draw="contents", channels=channels_of(ALL), fill="repeat")
    stretched = EXPECTED * ([1.0] * 3 + [5.0] * 3 + [1.0] * 4)
    cloud = network_input(stretched, frame, 40)
    np.testing.assert_allclose(np.linalg.norm(cloud[:, 3:6], axis=1), 1, rtol=1e-6)
    centred = cloud[:, :3] - cloud[:, :3].mean(0)
    points = POINTS[:, [0, 2, 1]] * (1, 1, -1)
    radius = np.linalg.norm(points - points.mean(0), axis=1).max()
    order = [int(np.square((points - points.mean(0)) / radius - row).sum(1).argmin()) for row in centred]
    np.testing.assert_allclose(cloud[:, 3:6], (NORMALS[:, [0, 2, 1]] * (1, 1, -1))[order], atol=1e-6)
    np.testing.assert_allclose(cloud[:, 6:], (BYTES / 255)[order], atol=1e-6)


@pytest.mark.parametrize("kind", ["none", "up", "any"])
@pytest.mark.parametrize("augment", ["dgcnn", "paper", "none"])
def test_augmented_normals_stay_normal_to_the_surface(augment: str, kind: str, monkeypatch) -> None:
    """Of a plane through each point: two directions in it, moved as the points are, stay at right angles to it."""
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(3, 50, 3, generator=generator), dim=2)
    across = torch.linalg.cross(normals, torch.randn(3, 50, 3, generator=generator))
    other = torch.linalg.cross(normals, across)
    centre = torch.randn(3, 50, 3, generator=generator)
    colours = torch.rand(3, 50, 3, generator=generator)
    run = augmentation(augment, kind, normals=True)
    if augment == "paper":  # but for its jitter, which moves each point by itself
        drawn = module.clipped_normal
        monkeypatch.setattr(module, "clipped_normal", lambda x, shape, *rest: drawn(x, shape, *rest) * (len(shape) < 3))
    moved = [
        run(torch.cat([points, normals, colours], dim=2), torch.Generator().manual_seed(1))
        for points in (centre, centre + across, centre + other)
    ]
    for end in moved[1:]:
        along = torch.nn.functional.normalize(end[..., :3] - moved[0][..., :3], dim=2)
        assert float((along * moved[0][..., 3:6]).sum(2).abs().max()) < 1e-5
    torch.testing.assert_close(moved[0][..., 3:6].norm(dim=2), torch.ones(3, 50))
    assert torch.equal(moved[0][..., 6:], colours)
    plain = augmentation(augment, kind)(centre, torch.Generator().manual_seed(1))
    assert torch.equal(moved[0][..., :3], plain)
    turned = rotate(torch.cat([centre, normals], 2), rotations("up", 4)[1].expand(3, 3, 3), normals=True)
    assert torch.equal(turned[..., 3:], rotate(normals, rotations("up", 4)[1].expand(3, 3, 3)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of clouds with all features."""
    root = tmp_path_factory.mktemp("features")
    for i, class_name in enumerate(("one", "two")):
        (root / "source" / class_name).mkdir(parents=True)
        for number in range(6):
            table = EXPECTED * ([1.0 + i + 0.1 * number] * 3 + [1.0] * 7)
            np.save(root / "source" / class_name / f"{number}.npy", table)
    prepare(root / "source", root / "out", Settings(num_points=32, features=ALL))
    return root / "out"


def test_prepared_and_read_and_streamed(folder: Path) -> None:
    with h5py.File(folder / "ply_data_train0.h5") as file:
        shapes = {name: file[name].shape[1:] for name in ("data", "normal", "colour", "intensity")}
    assert shapes == {"data": (32, 3), "normal": (32, 3), "colour": (32, 3), "intensity": (32, 1)}
    assert json.loads((folder / "prepare.json").read_text())["settings"]["channels"] == channels_of(ALL)
    plain = load_dataset("folder", folder, "train", 32)
    assert plain.points.shape[2] == 3 and plain.frame.channels == "xyz"
    for features in (ALL, ("normals",), ("colour", "intensity")):
        clouds = load_dataset("folder", folder, "train", 32, features=features)
        assert clouds.frame.channels == channels_of(features) and clouds.frame.width == clouds.points.shape[2]
        assert torch.equal(clouds.points[:, :, :3], plain.points)
        streamed = stream_dataset("folder", folder, "train", 32, features=features)
        assert torch.equal(next(streamed.read([torch.arange(len(clouds))])), clouds.points)
        assert streamed.fingerprint() == clouds.fingerprint() != plain.fingerprint()
        fewer = clouds_of(clouds, 16, features=features)  # of each cloud some points, whole
        assert all(any(torch.equal(point, whole) for whole in clouds.points[0]) for point in fewer.points[0])


def test_what_is_not_stored_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "plain"
    for class_name in ("one", "two"):
        (source / class_name).mkdir(parents=True)
        for number in range(3):
            np.save(source / class_name / f"{number}.npy", POINTS * (1 + number))
    prepare(source, tmp_path / "out", Settings(num_points=16))
    for load in (load_dataset, stream_dataset):
        with pytest.raises(InputError, match="prepare the data set with --features normals"):
            load("folder", tmp_path / "out", "train", 16, features=("normals",))
    with pytest.raises(InputError, match="nameless columns"):
        prepare(source, tmp_path / "other", Settings(num_points=16, features=("normals",)))
    with pytest.raises(InputError, match="'color' is unknown"):
        features_in("color")
    assert features_in(" colour, normals") == ("normals", "colour")
    assert FolderClouds(folder, "test", 8).points.shape[2] == 3
    good = {"up": "z", "num_points": 8, "channels": "xyz,normals"}
    assert frame_of(good, Path("f")).features == ("normals",)
    for channels in ("xyz,colour,normals", "xyz,", "normals", "xyz,heat", 3):
        with pytest.raises(InputError, match="channels"):
            frame_of(good | {"channels": channels}, Path("f"))
