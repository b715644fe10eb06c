"""`python -m scripts.checks.fuzz_files`: damaged, random and hostile files: none may do more than give an error.

Each format is read in a process of its own. Reported is what an input did beside being read or refused in a
sentence: another exception, a crash, a read of more than --seconds of the processor, more memory than the bound, a
file opened or a program started that is none of the input's business. The inputs follow from the seed; one that
fails is kept.
"""

import io
import multiprocessing
import pickle
import re
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

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
from dgcnn_ws.engine.checkpoint import check_model, load_tensors, restore_frame, restore_model
from dgcnn_ws.engine.devices import peak_memory_bytes, proc_bytes, reset_peak_memory
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.prediction import predict
from dgcnn_ws.inference.public_weights import sizes, translate

CPU = torch.device("cpu")
NUMBERS = (
    b"0 -1 1 3 7 65536 2147483648 4294967296 1000000000000 9223372036854775808 1e999 -1e308 1e-320 nan 0.5".split()
)
RECIPE = complete(Recipe(emb_dims=8, k=4, num_points=32, groups=2, norm="bn"))
FORMATS = (*(ending[1:] for ending in READERS), "zip", "checkpoint", "t7")
WATCHED = ("open", "os.system", "os.exec", "os.mkdir", "subprocess.Popen", "socket.connect")

PACKAGE = str(Path(dgcnn_ws.__file__).parent)  # and its compiled loops

Random = np.random.Generator


@dataclass(frozen=True)
class Arguments:
    inputs: int = 10_000
    """Files read in each format."""
    formats: str = ",".join(FORMATS)
    """Which, with commas between."""
    seed: int = 0
    """Decides all inputs."""
    seconds: float = 10.0
    """What a single read may take, in seconds of the processor."""
    memory_mib: int = 64
    """What it may take of memory: this, and 200 times the file's size."""
    keep: Path | None = None
    """Folder for inputs that fail."""


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


def use(kind: str, data: bytes, path: Path) -> None:
    """What the program does with a file of this kind."""
    if f".{kind}" in READERS:
        network_input(load_shape(data, PurePath(f"a.{kind}")), Frame(num_points=64), 64)
        return
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


def fuzz(kind: str, args: Arguments, folder: Path) -> dict[str, Any]:
    """Read `args.inputs` inputs of one kind and count what came of them; each lies in `folder` while it is read."""
    files = valid_files(kind)
    path, current = folder / "input.zip", folder / "current"
    seen: list[str] = []
    watching = False

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in WATCHED and not _is_our_business(str(arguments[0]), path):
            seen.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    worst_time, worst_memory = 0.0, 0
    for number in range(-len(files), args.inputs):
        data = files[number] if number < 0 else make_input(files, np.random.default_rng([args.seed, number]))
        current.write_bytes(data)
        reset_peak_memory(CPU)
        idle = proc_bytes("/proc/self/status", "VmRSS") or 0
        if number >= 0:  # the valid ones, which come first, load and compile what is needed once
            signal.setitimer(signal.ITIMER_PROF, args.seconds)  # ends the process, in whatever loop it is
        begun, watching, outcome = time.perf_counter(), True, "read"
        try:
            use(kind, data, path)
        except InputError:
            outcome = "refused"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
        watching = False
        touched, seen[:] = list(seen), []
        seconds = time.perf_counter() - begun
        signal.setitimer(signal.ITIMER_PROF, 0)
        memory = peak_memory_bytes(CPU) - idle
        if memory > (args.memory_mib << 20) + 200 * len(data):
            outcome = f"{memory >> 20} MiB of memory for {len(data)} bytes"
        if touched:
            outcome = f"touched {touched}"
        if number < 0:
            continue
        worst_time, worst_memory = max(worst_time, seconds), max(worst_memory, memory)
        counts[outcome if outcome in ("read", "refused") else "failed"] += 1
        if outcome not in ("read", "refused"):
            failures.append(f"{kind} input {number}: {outcome}")
            if args.keep:
                (args.keep / f"{kind}-{number}").write_bytes(data)
    return {"counts": counts, "failures": failures, "milliseconds": 1e3 * worst_time, "memory": worst_memory}


def _is_our_business(name: str, path: Path) -> bool:
    return name in (str(path), "/proc/self/statm") or name.startswith((sys.prefix, sys.base_prefix, PACKAGE))


def _fuzz_and_send(connection: Any, kind: str, args: Arguments, folder: Path) -> None:
    torch.set_num_threads(1)
    connection.send(fuzz(kind, args, folder))


def main(arguments: list[str]) -> int:
    args = tyro.cli(Arguments, prog="python -m scripts.checks.fuzz_files", args=arguments, description=__doc__)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    print("| format | inputs | read | refused | failed | longest (ms) | most memory above idle (MiB) |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for kind in args.formats.split(","):
        with tempfile.TemporaryDirectory() as folder:
            receiving, sending = multiprocessing.Pipe(duplex=False)
            process: Any = multiprocessing.get_context("spawn").Process(
                target=_fuzz_and_send, args=(sending, kind, args, Path(folder))
            )
            process.start()
            sending.close()
            try:
                result = receiving.recv()
            except EOFError:
                process.join()
                failures.append(f"{kind}: the process ended with code {process.exitcode}")
                if args.keep:
                    (Path(folder) / "current").rename(args.keep / f"{kind}-crash")
                continue
            process.join()
        counts = result["counts"]
        failures += result["failures"]
        print(
            f"| {kind} | {args.inputs:,} | {counts['read']:,} | {counts['refused']:,} | {counts['failed']:,} | "
            f"{result['milliseconds']:.0f} | {result['memory'] / (1 << 20):.0f} |",
            flush=True,
        )
    print("\n".join(failures[:50]))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
