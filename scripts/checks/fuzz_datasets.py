"""`python -m scripts.checks.fuzz_datasets`: feed the readers of HDF5 data sets and zips with hostile bytes.

How they are read and counted: `fuzzing.py`.
"""

import io
import random
import stat
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.ma
import tyro

from dgcnn_ws.datasets import ModelNet40
from dgcnn_ws.datasets.fetching.archive import take
from dgcnn_ws.datasets.fetching.published import Published, new_md5
from scripts.checks import fuzzing
from scripts.checks.fuzzing import Target, Use, fuzz_all

NUM_POINTS = 16
INTERESTING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
# Audit events that a reader has no business with.
FORBIDDEN = ("exec", "compile", "os.system", "os.exec", "os.fork", "subprocess.", "socket.", "ctypes.", "pickle.")
INSTALLED = (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), "<frozen ")

Generate = Callable[[random.Random], bytes]


@dataclass(frozen=True)
class Arguments(fuzzing.Arguments):
    targets: str = "hdf5,zip"
    """What to fuzz, with commas between: hdf5 | zip."""


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Damage bytes the way files are damaged, and the way attackers do: numbers in headers first of all."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8, 32))):
        at = rng.randrange(len(data)) if data else 0
        match rng.randrange(7):
            case 0 if data:
                data[at] ^= 1 << rng.randrange(8)
            case 1 if data:
                data[at] = rng.randrange(256)
            case 2:
                size = rng.choice((1, 2, 4, 8))
                data[at : at + size] = (rng.choice(INTERESTING) % (1 << 8 * size)).to_bytes(size, "little")
            case 3:
                del data[at : at + rng.randrange(1, 64)]
            case 4:
                data[at:at] = rng.randbytes(rng.randrange(1, 64))
            case 5:
                source = rng.randrange(len(data)) if data else 0
                block = data[source : source + rng.randrange(1, 512)]
                data[at : at + len(block)] = block
            case 6 if rng.random() < 0.2:
                del data[at:]
    return bytes(data)


def make_hdf5(rng: random.Random) -> bytes:
    """A small file of the layout, plain or chunked and compressed; sometimes with something odd in it."""
    count = rng.choice((0, 1, 3))
    buffer = io.BytesIO()
    options: dict[str, Any] = rng.choice(
        ({}, {"chunks": True}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True},
         {"compression": "lzf"}, {"maxshape": (None, None, None)})
    )  # fmt: skip
    with h5py.File(buffer, "w", libver=rng.choice(("earliest", "latest", None))) as file:
        shape = (max(count, 1), NUM_POINTS + rng.choice((0, 0, 16)), 3)
        file.create_dataset("data", data=np.random.default_rng(rng.randrange(99)).random(shape, np.float32), **options)
        file.create_dataset("label", data=np.zeros((shape[0], 1), rng.choice(("u1", "i8"))))
        match rng.randrange(10):
            case 0:
                file["other"] = h5py.SoftLink("/data")
            case 1:
                file["text"] = "a text"
                file["data"].attrs["note"] = np.arange(3)
            case 2:
                file.create_group("group/of/groups")
            case 3:
                del file["label"]
                file["label"] = np.array([b"chair"] * shape[0])
            case 4:
                del file["data"]
                file["data"] = np.zeros(shape, np.dtype([("x", "f4"), ("y", "u1", (3,))]))
    return buffer.getvalue()


def generate_hdf5(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(4096))
    if kind < 0.1:
        return b"\x89HDF\r\n\x1a\n" + rng.randbytes(rng.randrange(4096))
    return mutate(make_hdf5(rng), rng)


def feed_hdf5(content: bytes, folder: Path) -> None:
    """Read the bytes as ModelNet40's test split; whatever is accepted must be finite and labelled."""
    (folder / "shape_names.txt").write_text("chair\ncup\n")
    (folder / "test_files.txt").write_text("ply_data_test0.h5\n")
    (folder / "ply_data_test0.h5").write_bytes(content)
    clouds = ModelNet40(folder, "test", NUM_POINTS)
    assert clouds.points.isfinite().all() and clouds.points.shape[1:] == (NUM_POINTS, 3)
    assert ((clouds.labels >= 0) & (clouds.labels < 2)).all()


PUBLISHED_FILES = {"ply_data_train0.h5": b"training clouds " * 40, "ply_data_test0.h5": bytes(range(256)) * 3}
PUBLISHED = Published(
    name="miniature",
    folder="modelnet40_ply_hdf5_2048",
    train={"ply_data_train0.h5": new_md5(PUBLISHED_FILES["ply_data_train0.h5"]).hexdigest()},
    test={"ply_data_test0.h5": new_md5(PUBLISHED_FILES["ply_data_test0.h5"]).hexdigest()},
    class_names=("chair", "cup"),
    mirrors=(),
)


def make_zip(rng: random.Random) -> bytes:
    """A zip of the published files, often with a member that means harm."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in PUBLISHED_FILES.items():
            archive.writestr(f"{PUBLISHED.folder}/{name}", content)
        up = "../" * rng.randrange(1, 9)
        match rng.randrange(8):
            case 0:
                archive.writestr(f"{up}ply_data_test0.h5", b"evil")
            case 1:
                archive.writestr(rng.choice(("/tmp/evil", "C:/evil", "\\\\host\\evil", up + "evil")), b"evil")
            case 2:
                link = zipfile.ZipInfo("ply_data_test0.h5" if rng.random() < 0.5 else "link")
                link.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(link, up + "etc")
            case 3:
                archive.writestr("zeros.h5", bytes(1 << 20), zipfile.ZIP_DEFLATED)
            case 4:
                method = rng.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
                archive.writestr("elsewhere/shape_names.txt", bytes(1 << 16), method)
    return buffer.getvalue()


def generate_zip(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.05:
        return rng.randbytes(rng.randrange(4096))
    if kind < 0.1:
        return b"PK\x03\x04" + rng.randbytes(rng.randrange(2048)) + b"PK\x05\x06" + rng.randbytes(18)
    return mutate(make_zip(rng), rng) if kind < 0.95 else make_zip(rng)


def feed_zip(content: bytes, folder: Path) -> None:
    """Unpack the bytes; what comes out must be the published files, and nothing may lie anywhere else."""
    (folder / "mirror.zip").write_bytes(content)
    (folder / "deep/down/place").mkdir(parents=True)
    try:
        take(folder / "mirror.zip", PUBLISHED, folder / "deep/down/place")
        assert not PUBLISHED.damage(folder / "deep/down/place")
    finally:
        found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
        names = PUBLISHED.files.keys() | PUBLISHED.lists.keys()
        assert found <= {"mirror.zip", "deep", "deep/down", "deep/down/place", *(f"deep/down/place/{n}" for n in names)}


def is_forbidden(event: str, details: tuple[Any, ...], folder: Path) -> bool:
    is_import = event == "exec" and details[0].co_filename.startswith(INSTALLED)
    return event.startswith(FORBIDDEN) and not is_import


def target(generate: Generate, feed: Use) -> Target:
    return Target(lambda seed, number: generate(random.Random(f"{seed} {number}")), feed, is_forbidden)


TARGETS = {"hdf5": partial(target, generate_hdf5, feed_hdf5), "zip": partial(target, generate_zip, feed_zip)}


def main() -> int:
    args = tyro.cli(Arguments, description=__doc__)
    return fuzz_all(TARGETS, args.targets, args)


if __name__ == "__main__":
    sys.exit(main())
