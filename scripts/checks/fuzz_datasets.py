"""`python -m scripts.checks.fuzz_datasets`: feed the readers of HDF5 data sets and zips with hostile bytes.

They are read in a process of its own, forked from one in which everything is imported, so that a crash, a hang,
memory and executed code are seen and counted, whatever they do to it. Right are two outcomes: InputError, or data
that are as they should be.
"""

import io
import multiprocessing
import random
import resource
import shutil
import stat
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tyro
from tqdm import tqdm

from dgcnn_ws.datasets import ModelNet40
from dgcnn_ws.datasets.fetching.archive import take
from dgcnn_ws.datasets.fetching.published import Published, new_md5
from dgcnn_ws.errors import InputError

NUM_POINTS = 16
ACCEPTED, REFUSED = "accepted", "refused with InputError"
INTERESTING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
# Audit events that a reader has no business with.
FORBIDDEN = ("exec", "compile", "os.system", "os.exec", "os.fork", "subprocess.", "socket.", "ctypes.", "pickle.")
INSTALLED = (sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), "<frozen ")

Generate = Callable[[random.Random], bytes]
Feed = Callable[[bytes, Path], None]
Target = tuple[Generate, Feed]


@dataclass(frozen=True)
class Arguments:
    targets: str = "hdf5,zip"
    """What to fuzz, with commas between: hdf5 | zip."""
    inputs: int = 10_000
    """Inputs of each."""
    seed: int = 0
    """Decides the inputs, with their number."""
    seconds: float = 10.0
    """A reader that takes longer hangs."""
    megabytes: int = 64
    """Memory that a reader may take above the process it starts from."""
    keep: Path = Path("runs/fuzz")
    """Folder for the inputs that went wrong."""


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


TARGETS: dict[str, Target] = {
    "hdf5": (generate_hdf5, feed_hdf5),
    "zip": (generate_zip, feed_zip),
}


def read(feed: Feed, content: bytes, folder: Path, executed: list[str]) -> str:
    """What became of one input, in a folder made for it."""
    folder.mkdir()
    executed.clear()
    try:
        feed(content, folder)
        outcome = ACCEPTED
    except InputError as error:
        outcome = REFUSED if "\n" not in str(error) else "MORE THAN ONE LINE"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    shutil.rmtree(folder)
    return f"EXECUTED {executed}" if executed else outcome


def read_all(target: Target, numbers: range, args: Arguments, scratch: Path, results: Connection) -> None:
    """In a process of its own: read inputs, and send outcome, seconds and megabytes of each."""
    executed: list[str] = []

    def watch(event: str, details: tuple[Any, ...]) -> None:
        is_import = event == "exec" and details[0].co_filename.startswith(INSTALLED)
        if event.startswith(FORBIDDEN) and not is_import:
            executed.append(event)

    sys.addaudithook(watch)
    # What can be limited is address space; that is far above the bound on memory, which is measured.
    limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (4 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    generate, feed = target
    for number in numbers:
        content = generate(seeded(args, number))
        Path("/proc/self/clear_refs").write_text("5")  # the recorded peak starts anew
        before, began = resident("VmRSS"), time.monotonic()
        outcome = read(feed, content, scratch / str(number), executed)
        taken = (resident("VmHWM") - before) / 1024
        if taken > args.megabytes:
            outcome = f"TOOK {taken:.0f} MB"
        results.send((outcome, time.monotonic() - began, taken))


def seeded(args: Arguments, number: int) -> random.Random:
    return random.Random(f"{args.seed} {number}")


def read_each(target: Target, args: Arguments, scratch: Path) -> Iterator[tuple[str, float, float]]:
    """Yield what became of every input; a process that dies or hangs is replaced for the inputs that are left."""
    fork = multiprocessing.get_context("fork")  # everything is imported already
    done = 0
    while done < args.inputs:
        ours, theirs = fork.Pipe(duplex=False)
        reader = fork.Process(target=read_all, args=(target, range(done, args.inputs), args, scratch, theirs))
        reader.start()
        theirs.close()
        while done < args.inputs:
            done += 1
            try:
                if ours.poll(args.seconds):
                    yield ours.recv()
                    continue
                yield "HUNG", args.seconds, 0.0
            except EOFError:
                reader.join()
                yield f"DIED with exit code {reader.exitcode}", 0.0, 0.0
            break
        reader.kill()
        reader.join()


def resident(field: str) -> int:
    """Kilobytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def fuzz(name: str, args: Arguments) -> bool:
    """Feed one target, print what came of it, keep what went wrong, and say whether nothing did."""
    target = TARGETS[name]
    outcomes: Counter[str] = Counter()
    slowest, most = 0.0, 0.0
    began = time.monotonic()
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    results = tqdm(read_each(target, args, scratch), total=args.inputs, desc=name, disable=None, leave=False)
    for number, (outcome, seconds, taken) in enumerate(results):
        right = outcome in (ACCEPTED, REFUSED)
        outcomes[outcome if right else "WRONG"] += 1
        slowest, most = max(slowest, seconds), max(most, taken)
        if not right:
            args.keep.mkdir(parents=True, exist_ok=True)
            (args.keep / f"{name}-{args.seed}-{number}").write_bytes(target[0](seeded(args, number)))
            print(f"{name} {number}: {outcome}", file=sys.stderr)
    shutil.rmtree(scratch)
    print(
        f"{name}: {args.inputs:,} inputs in {time.monotonic() - began:.0f} s: "
        + ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
        + f"; slowest {slowest:.2f} s, most memory {most:.0f} MB"
    )
    return not outcomes["WRONG"]


def main() -> int:
    args = tyro.cli(Arguments, description=__doc__)
    return int(not all([fuzz(target, args) for target in args.targets.split(",")]))


if __name__ == "__main__":
    sys.exit(main())
