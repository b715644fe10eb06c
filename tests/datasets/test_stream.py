"""Clouds from files: the same bits in the same order as in memory, within a buffer, and one sentence for bad files."""

import gc
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from dgcnn_ws.datasets import StreamedClouds, hdf5, load_dataset, stream_dataset
from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.errors import InputError

FOLDER = "modelnet40_ply_hdf5_2048"
COUNT, POINTS = 600, 32  # in two files, 230 kB of points
BUFFER = 40_000  # of which a window takes a fifth: 20 clouds


@pytest.fixture(params=["contiguous", "gzip", "float64"])
def many(root: Path, request: pytest.FixtureRequest) -> Path:
    """A training set many times larger than the buffer, in two files that differ in length."""
    rng = np.random.default_rng(5)
    for file, count in enumerate((COUNT - 150, 150)):
        with h5py.File(root / FOLDER / f"ply_data_train{file}.h5", "w") as stored:
            data = rng.normal(size=(count, 48, 3)).astype("f8" if request.param == "float64" else "f4")
            options = {"compression": "gzip", "chunks": (8, 24, 1)} if request.param == "gzip" else {}
            stored.create_dataset("data", data=data, **options)
            stored["label"] = rng.integers(0, 3, (count, 1)).astype(np.uint8)
    return root


def pair(root: Path, split: str = "train", buffer: int = BUFFER) -> tuple[Loader, Loader]:
    """The loaders of a split in memory and from files."""
    both = (load_dataset("modelnet40", root, split, POINTS), stream_dataset("modelnet40", root, split, POINTS, buffer))
    train = split == "train"
    memory, stream = (Loader(clouds, 7, shuffle=train, drop_last=train, seed=3) for clouds in both)
    return memory, stream


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_batches_are_those_of_clouds_in_memory(many: Path, split: str) -> None:
    memory, stream = pair(many, split)
    assert memory.dataset.fingerprint() == stream.dataset.fingerprint()
    assert len(memory) == len(stream) and memory.dataset.class_names == stream.dataset.class_names
    for epoch in range(2):
        batches = zip(memory.epoch(epoch), stream.epoch(epoch), strict=True)
        assert all(torch.equal(p, q) and torch.equal(a, b) for (p, a), (q, b) in batches)
    points, label = stream.dataset[2]
    assert torch.equal(points, memory.dataset[2][0]) and label == memory.dataset[2][1]


@pytest.mark.parametrize("start", [1, 30, 76, 77])
def test_an_epoch_goes_on_at_any_batch(many: Path, start: int) -> None:
    memory, stream = pair(many)
    rest = list(memory.epoch(1))[start:]
    found = list(stream.epoch(1, start))
    assert len(memory) == 77 and len(found) == 77 - start
    assert all(torch.equal(a[0], b[0]) for a, b in zip(rest, found, strict=True))


def test_of_several_processes_each_reads_its_own_clouds_alone(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clouds = stream_dataset("modelnet40", many, "train", POINTS, BUFFER)
    filled: list[int] = []
    fill = clouds._fill
    monkeypatch.setattr(clouds, "_fill", lambda *args: filled.append(len(points := fill(*args))) or points)
    shares = [torch.tensor(places) for places in ([0, 1, 4], [2, 3, 5])]
    whole, *parts = (
        [points for points, _ in Loader(clouds, 6, "cpu", True, True, 3, mine).epoch(1, 2)] for mine in (None, *shares)
    )
    for batch, *own in zip(whole, *parts, strict=True):
        assert torch.equal(batch, sum(own, torch.zeros(())))
        assert all(torch.equal(batch[mine], points[mine]) for mine, points in zip(shares, own, strict=True))
    assert sum(filled) == 2 * 6 * len(whole)  # once by whoever reads all, and once by the two together


def test_every_cloud_comes_once(many: Path) -> None:
    _, stream = pair(many)
    stream = Loader(stream.dataset, 7, shuffle=True)
    seen = torch.cat([points for points, _ in stream.epoch(0)]).flatten(1)
    assert len(seen) == len(stream.dataset) == len(seen.unique(dim=0))


def test_it_reads_ahead_within_the_buffer(many: Path) -> None:
    """20 clouds a window: what is allocated at once stays below the buffer, of a set many times as large."""
    _, stream = pair(many)
    list(stream.epoch(0))  # h5py's own caches
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in stream.epoch(1):
        pass
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < BUFFER + 40_000  # and Python's own objects
    assert COUNT * POINTS * 12 > 5 * BUFFER


def test_a_batch_beyond_the_buffer_is_a_window(many: Path) -> None:
    clouds = stream_dataset("modelnet40", many, "train", POINTS, 16_000)
    seen = [points for points, _ in Loader(clouds, 20)]
    assert torch.equal(torch.cat(seen), load_dataset("modelnet40", many, "train", POINTS).points)


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("stream")]


def test_whoever_stops_early_leaves_no_thread(many: Path) -> None:
    _, stream = pair(many)
    batches = stream.epoch(0)
    next(batches)
    assert readers()
    batches.close()  # as leaving a loop does
    assert not readers()

    def fail() -> None:
        for _ in stream.epoch(0):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    gc.collect()
    assert not readers()


def replace(path: Path, value: np.ndarray | None) -> None:
    """Put other points in the file's place, which the reader may have open."""
    with h5py.File(path.with_suffix(".new"), "w") as file:
        file["label"] = np.zeros((150, 1), np.uint8)
        if value is not None:
            file["data"] = value
    path.with_suffix(".new").replace(path)


def truncate(path: Path) -> None:
    path.with_suffix(".new").write_bytes(path.read_bytes()[:2_000])
    path.with_suffix(".new").replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "has NaN or infinite coordinates": lambda path: replace(path, np.full((150, 48, 3), np.nan, "f4")),
    "has changed while it was in use": lambda path: replace(path, np.zeros((20, 48, 3), "f4")),
    "has no `data`": lambda path: replace(path, None),
    "cannot be read as HDF5": truncate,
    "is missing; restore it": Path.unlink,
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_file_that_goes_bad_while_it_is_read(many: Path, message: str) -> None:
    _, stream = pair(many)
    batches = stream.epoch(0)
    next(batches)
    CHANGES[message](many / FOLDER / "ply_data_train1.h5")
    with pytest.raises(InputError) as error:
        list(batches)
    assert message in str(error.value) and "ply_data_train1.h5" in str(error.value) and "\n" not in str(error.value)
    assert not readers()


def test_headers_are_checked_as_in_memory(root: Path) -> None:
    path = root / FOLDER / "ply_data_test0.h5"
    for message, value in (
        ("expected `data` (n, points, 3)", np.zeros((3, 32, 4), "f4")),
        ("is not an array of the expected type", np.zeros((3, 32, 3), int)),
        ("stores 8 points a cloud; lower --num-points", np.zeros((3, 8, 3), "f4")),
    ):
        with h5py.File(path, "a") as file:
            del file["data"]
            file["data"] = value
        with pytest.raises(InputError, match="(?s).*" + message.split("(")[0]):
            stream_dataset("modelnet40", root, "test", POINTS)
    with h5py.File(path, "a") as file:
        del file["data"]
        file["data"] = h5py.ExternalLink("other.h5", "data")
    with pytest.raises(InputError, match="is a link to somewhere else"):
        stream_dataset("modelnet40", root, "test", POINTS)


def test_chunks_beyond_the_buffer_are_refused_with_the_way_out(root: Path) -> None:
    with h5py.File(root / FOLDER / "ply_data_test0.h5", "a") as file:
        data = file["data"][:]
        del file["data"]
        file.create_dataset("data", data=np.repeat(data, 1000, 1), chunks=(3, 32_000, 3))
    with pytest.raises(InputError, match=r"chunks of 1\.2 MB.*--stream-buffer 6, or"):
        stream_dataset("modelnet40", root, "test", POINTS, 10**6)
    assert len(stream_dataset("modelnet40", root, "test", POINTS, 6 * 10**6)) == 3


def test_what_memory_may_not_hold_names_the_flag_and_streams(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_SPLIT_BYTES", 5_000)
    with pytest.raises(InputError, match=r"16 clouds is 6144 bytes.*Add --stream"):
        load_dataset("modelnet40", root, "trainval", POINTS)
    clouds = stream_dataset("modelnet40", root, "trainval", POINTS)
    assert isinstance(clouds, StreamedClouds) and sum(len(points) for points, _ in Loader(clouds, 5)) == 16


@pytest.mark.parametrize(
    ("options", "message"), [({"split": "dev"}, "no split 'dev'"), ({"num_points": 0}, "at least 1 point")]
)
def test_bad_arguments(root: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stream_dataset("modelnet40", root, **{"split": "test", "num_points": 4, **options})  # type: ignore[arg-type]
