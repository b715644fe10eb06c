"""`python -m scripts.checks.fuzz_files`: damaged, random and hostile files: none may do more than give an error.

How they are read and counted: `fuzzing.py`. Nor may one open a file or start a program that is none of its business.
"""

import io
import os
import pickle
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import laspy
import lzf
import numpy as np
import torch
import trimesh
import tyro

import dgcnn_ws
from dgcnn_ws.datasets.formats.gltf import embed_buffers
from dgcnn_ws.datasets.frame import Frame
from dgcnn_ws.datasets.network_input import network_input
from dgcnn_ws.datasets.preparing.layout import find_entries
from dgcnn_ws.datasets.preparing.shape_source import list_members, open_zip, read_member
from dgcnn_ws.datasets.shape_file import READERS, load_shape
from dgcnn_ws.engine.folder.checkpoint import check_model, load_tensors, restore_frame, restore_model
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete
from dgcnn_ws.inference.prediction import predict
from dgcnn_ws.inference.public_weights import sizes, translate
from scripts.checks import fuzzing
from scripts.checks.fuzzing import Target, fuzz_all

CPU = torch.device("cpu")
NUMBERS = (
    b"0 -1 1 3 7 65536 2147483648 4294967296 1000000000000 9223372036854775808 1e999 -1e308 1e-320 nan 0.5".split()
)
RECIPE = complete(Recipe(emb_dims=8, k=4, num_points=32, groups=2, norm="bn"))
FORMATS = (*(ending[1:] for ending in READERS), "zip", "checkpoint", "t7")
WATCHED = ("open", "os.system", "os.exec", "os.mkdir", "subprocess.Popen", "socket.connect")

INPUT = "input.zip"
PACKAGE = str(Path(dgcnn_ws.__file__).parent)  # and its compiled loops

# Read by a program of their own, which gets a folder of its own and is started from this Python.
APART = ("laz", "e57", "step", "stp", "iges", "igs")
ROOT = Path(__file__).parents[2]
SAMPLES = {"e57": "two_scans.e57", **dict.fromkeys(("step", "stp", "iges", "igs"), "can.step")}
VRML = """#VRML V2.0 utf8
DEF A Shape { geometry IndexedFaceSet { coord Coordinate { point [0 0 0, 1 0 0, 1 1 0, 0 1 0, 0 0 1] }
  coordIndex [0,1,2,3,-1, 0 1 4 -1] } }
Transform { translation 3 0 0 rotation 0 0 1 1.5 scale 1 2 1 children [ USE A Group { children USE A } ] }
"""

Random = np.random.Generator


@dataclass(frozen=True)
class Arguments(fuzzing.Arguments):
    formats: str = ",".join(FORMATS)
    """Which, with commas between."""


class Executed:
    """A pickle of this opens a file when it is unpickled; the audit hook would see it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("/tmp/executed", "w")


# --- valid files to start from ---


def valid_files(kind: str) -> list[bytes]:
    rng = np.random.default_rng(0)
    if kind in ("off", "obj", "ply", "stl", "glb", "gltf"):
        return _valid_meshes(kind)
    if kind == "zip":
        members = {f"{c}/{s}/{i}.xyz": b"0 0 0\n1 2 3\n" for c in "ab" for s in ("train", "test") for i in range(2)}
        return [_zipped(members), _zipped(members, zipfile.ZIP_DEFLATED)]
    if kind == "pcd":
        return _valid_pcd(rng.normal(size=(20, 3)))
    if kind in ("3mf", "wrl"):
        return _valid_3mf() if kind == "3mf" else [VRML.encode()]
    if kind in SAMPLES:
        return [(ROOT / "tests/datasets/formats/samples" / SAMPLES[kind]).read_bytes()]
    if kind in ("las", "laz"):
        return [_las(rng.normal(size=(20, 3)), kind == "laz", version) for version in ("1.2", "1.4")]
    if kind in ("npy", "npz"):
        arrays = [rng.normal(size=(20, 3)).astype(t) for t in ("<f4", ">f8", "i2")]
        files = [_saved(np.save if kind == "npy" else np.savez_compressed, array) for array in arrays]
        return [*files, _saved(np.save if kind == "npy" else np.savez, np.array([Executed()] * 3, object))]
    if kind in ("xyz", "txt", "pts", "asc", "csv"):
        text = "".join(f"{x:.4f} {y:.4f} {z:.4f} 7\n" for x, y, z in rng.normal(size=(20, 3)))
        named = "# x\nx,y,z,i\n" + text.replace(" ", ",")
        commas = text.replace(".", ",").replace(" ", ";")
        return [part.encode() for part in (text, f"20\n{text}", named, commas, f"// X Y Z I\n{text}")]
    state: dict[str, Any] = dict(build_model(RECIPE, 3).state_dict())
    content: dict[str, Any] = public_names(state)
    if kind == "checkpoint":
        content = {"config": as_config(RECIPE), "class_names": ["a", "b", "c"], "model": state}
        content["frame"] = asdict(Frame())
    files = [_torch_saved(c, new) for c in (content, content, content | {"extra": Executed()}) for new in (True, False)]
    return [*files, pickle.dumps(Executed())]


def _valid_meshes(kind: str) -> list[bytes]:
    box, cone = trimesh.creation.box(extents=(1, 2, 3)), trimesh.creation.cone(1, 2, sections=5)
    scene = trimesh.Scene([box, cone, box.copy().apply_translation((2, 0, 0))])
    cloud = trimesh.PointCloud(cone.vertices)
    if kind == "gltf":
        return [_embedded(scene), _embedded(trimesh.Scene(cloud))]
    files = [box.export(file_type=kind), cone.export(file_type=kind)]
    coff = "COFF\n4 1 0\n" + "0 0 1 9 9 9 9\n1 0 0 9 9 9 9\n" * 2 + "4 0 1 2 3\n"
    corners = "v 0 0 0 1 1 1\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
    files += {
        "off": [coff, "OFF3 1 0\n0 0 0 1 0 0 0 1 0 3 0 1 2"],
        "obj": [f"mtllib a.mtl\n{corners}usemtl a\nf 1/1/1 2/2/2 3/3/3 4/4/4\nf 1 2 3\n"],
        "ply": [cone.export(file_type="ply", encoding="ascii"), cloud.export(file_type="ply")],
        "stl": [box.export(file_type="stl_ascii")],
        "glb": [scene.export(file_type="glb")],
    }[kind]
    return [file.encode() if isinstance(file, str) else file for file in files]


def _valid_pcd(points: np.ndarray) -> list[bytes]:
    rows = np.column_stack([points, points[:, 0]]).astype("<f4")
    head = "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z intensity\nSIZE 4 4 4 4\nTYPE F F F F\nCOUNT 1 1 1 1\n"
    head += f"WIDTH {len(rows)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(rows)}\nDATA "
    text = "\n".join(" ".join(map(str, row)) for row in rows.tolist())
    raw = np.tile(rows.T, 1).tobytes()
    packed = lzf.compress(bytes(len(raw)))
    sizes = np.array([len(packed), len(raw)], "<u4").tobytes()
    bodies = [("ascii", text.encode()), ("binary", rows.tobytes()), ("binary_compressed", sizes + packed)]
    return [f"{head}{encoding}\n".encode() + body for encoding, body in bodies]


def _valid_3mf() -> list[bytes]:
    space = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
    vertices = "".join(f'<vertex x="{i & 1}" y="{i >> 1 & 1}" z="{i >> 2}"/>' for i in range(8))
    corners = "".join(f'<triangle v1="{i}" v2="{i + 1}" v3="{i + 2}"/>' for i in range(6))
    objects = f'<object id="1"><mesh><vertices>{vertices}</vertices><triangles>{corners}</triangles></mesh></object>'
    placed = '<component objectid="1" transform="1 0 0 0 1 0 0 0 1 2 0 0"/>'
    objects += f'<object id="2"><components>{placed}</components></object>'
    build = '<build><item objectid="1"/><item objectid="2" transform="0 1 0 -1 0 0 0 0 1 0 0 5"/></build>'
    text = f'<?xml version="1.0"?><model xmlns="{space}"><resources>{objects}</resources>{build}</model>'
    files = {"3D/3dmodel.model": text.encode()}
    return [_zipped(files), _zipped(files, zipfile.ZIP_DEFLATED)]


def _las(points: np.ndarray, packed: bool, version: str) -> bytes:
    header = laspy.LasHeader(point_format=3, version=version)
    header.scales = np.full(3, 1e-4)
    cloud, stream = laspy.LasData(header), io.BytesIO()
    cloud.x, cloud.y, cloud.z = points.T
    cloud.write(stream, do_compress=packed)
    return stream.getvalue()


def _embedded(scene: trimesh.Scene) -> bytes:
    """A scene as .gltf with its buffers inside."""
    files: dict[str, bytes] = scene.export(file_type="gltf")
    (document,) = (data for name, data in files.items() if name.endswith(".gltf"))
    return embed_buffers(document, lambda name: files[str(name)])


def public_names(ours: dict[str, Any]) -> dict[str, Any]:
    """Name our weights as the public networks do, by asking `translate` for the way back."""
    from dgcnn_ws.inference.public_weights import NAMINGS

    back = {ours: public for public, ours in NAMINGS[0].layers.items()}
    layers = {name: value for name, value in ours.items() if "." in name}  # not the settings
    return {f"{back[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value for name, value in layers.items()}


def _saved(save: Callable[..., None], array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    save(stream, array)
    return stream.getvalue()


def _torch_saved(content: Any, new: bool) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=new)
    return stream.getvalue()


def _zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


# --- damage ---


def damage(data: bytes, other: bytes, rng: Random) -> bytes:
    """One or two changes of the kinds that transfers, exporters and attackers make."""
    longest = len(data) + (1 << 16)
    for _ in range(rng.integers(1, 3)):
        place = int(rng.integers(len(data) + 1))
        end = place + int(2 ** rng.uniform(0, 10))
        match rng.integers(8):
            case 0:
                data = data[:place]
            case 1:
                data = data[:place] + bytes([rng.integers(256)]) + data[place + 1 :]
            case 2:
                data = data[:place] + data[end:]
            case 3:
                data = data[:end] + data[place:end] * int(rng.integers(1, 50)) + data[end:]
            case 4:
                data = data[:place] + other[int(rng.integers(len(other) + 1)) :]
            case 5:
                data = data[:place] + rng.bytes(end - place) + data[end:]
            case 6:
                value = int(rng.choice([0, 1, 255, 65535, 2**31 - 1, 2**31, 2**32 - 1]))
                data = data[:place] + value.to_bytes(4, "little") + data[place + 4 :]
            case _:
                data = _replace_number(data, rng)
    return data[:longest]


def _replace_number(data: bytes, rng: Random) -> bytes:
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?", data[: 1 << 14]))
    if not found:
        return data
    # Headers stand first, and it is they that make promises.
    match = found[int(len(found) * rng.random() ** 3)]
    return data[: match.start()] + NUMBERS[rng.integers(len(NUMBERS))] + data[match.end() :]


def make_input(files: list[bytes], rng: Random) -> bytes:
    """A file that is damaged as it is, or inside its zip members or its JSON, so that the damage gets that far."""
    data, other = (files[rng.integers(len(files))] for _ in range(2))
    kind = rng.random()
    if kind < 0.05:
        return rng.bytes(int(rng.integers(4096)))
    if kind < 0.1:
        return data[: int(rng.integers(20))] + rng.bytes(int(rng.integers(4096)))
    if kind < 0.5 and data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = list(members)[int(len(members) * rng.random() ** 2)]
        members[name] = damage(members[name], other, rng) if rng.random() < 0.9 else bytes(1 << 24)
        return _zipped(members, zipfile.ZIP_DEFLATED if rng.random() < 0.2 else zipfile.ZIP_STORED)
    if kind < 0.5 and data.startswith(b"glTF"):
        length = int.from_bytes(data[12:16], "little")
        text = (
            damage(data[20 : 20 + length], b"", rng)
            if rng.random() < 0.3
            else _replace_number(data[20 : 20 + length], rng)
        )
        text += b" " * (-len(text) % 4)
        return data[:12] + len(text).to_bytes(4, "little") + data[16:20] + text + data[20 + length :]
    return damage(data, other, rng)


# --- what is done with an input ---


def use(kind: str, data: bytes, folder: Path) -> None:
    """What the program does with a file of this kind."""
    if f".{kind}" in READERS:
        network_input(load_shape(data, PurePath(f"a.{kind}")), Frame(num_points=64), 64)
        return
    path = folder / INPUT
    path.write_bytes(data)
    if kind == "zip":
        open_zip.cache_clear()
        list_members.cache_clear()
        for entry in find_entries(path).entries:
            read_member(path, entry.path)
    elif kind == "checkpoint":
        model, _, _ = restore_model(path)
        restore_frame(path)
        predict(model, [np.random.default_rng(0).normal(size=(64, 3))], CPU)
    else:
        weights = translate(load_tensors(path))
        emb_dims, num_classes = sizes(weights)
        check_model(path, complete(Recipe(norm="bn", emb_dims=emb_dims)), num_classes, weights)


def is_forbidden(kind: str, event: str, details: tuple[Any, ...], folder: Path) -> bool:
    if event not in WATCHED:
        return False
    name = str(details[0])
    ours = [str(folder / INPUT), "/proc/self/status"]
    places = [sys.prefix, sys.base_prefix, PACKAGE]
    if kind in APART:
        ours += [sys.executable, os.devnull]
        places.append(str(Path(tempfile.gettempdir(), tempfile.gettempprefix())))
    piped = kind in APART and isinstance(details[0], int)  # the ends of pipes, by their numbers
    return not piped and name not in ours and not name.startswith(tuple(places))


def target(kind: str) -> Target:
    files = valid_files(kind)

    def make(seed: int, number: int) -> bytes:
        return make_input(files, np.random.default_rng([seed, number]))

    return Target(make, partial(use, kind), partial(is_forbidden, kind), files, growth=200)


def main() -> int:
    args = tyro.cli(Arguments, prog="python -m scripts.checks.fuzz_files", description=__doc__)
    return fuzz_all({kind: partial(target, kind) for kind in FORMATS}, args.formats, args)


if __name__ == "__main__":
    sys.exit(main())
