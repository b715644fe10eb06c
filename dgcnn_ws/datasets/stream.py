"""Clouds read from their files while they are used, for a split that memory does not hold.

Whoever asks says in which order, so the order is the in-memory loader's, and so is every bit. What is wanted next is
known: as many whole batches as a fifth of the buffer holds, a window, are read in the order in which they lie in the
files, each of a file's chunks once, by one thread, while the window before is in use.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from dgcnn_ws.datasets.hdf5 import (
    check_file,
    check_points,
    chunk_bytes,
    list_files,
    open_hdf5,
    point_arrays,
    read_class_names,
    read_labels,
    read_rows,
)
from dgcnn_ws.datasets.modelnet import LabelledClouds, check_request, frame_of_folder, split_rows
from dgcnn_ws.errors import InputError

PARTS = 5  # of the buffer
GROWTH = 16  # of the windows, from one batch to their whole size: the first batch is not waited for long
SCANNED = 4096  # clouds whose first points are read at a time


class StreamedClouds(LabelledClouds):
    """A split in the HDF5 layout, its labels in memory and its points read from the files when they are asked for.

    The clouds, their order and the fingerprint are those of `HDF5Clouds`. A file that turns out to be damaged, or
    whose coordinates are not finite, raises InputError when it is come to.

    Args:
        folder: the layout folder.
        split: `train` (without validation), `val`, `trainval` (all of train) or `test`.
        num_points: points per cloud, the first of those stored.
        buffer_bytes: memory for points while `read` goes on: a fifth each for the window in use, for the next one, for
            a chunk, for the clouds in it, and for working on these. A window is one batch at least.
        val_fraction: as for `HDF5Clouds`.
        split_seed: as for `HDF5Clouds`.
        features: as for `HDF5Clouds`.

    Raises:
        InputError: the folder, a header or the labels cannot be used, or the chunks of a file are too large for the
            buffer.
    """

    def __init__(
        self,
        folder: Path,
        split: str = "train",
        num_points: int = 1024,
        buffer_bytes: int = 256 * 10**6,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        features: tuple[str, ...] = (),
    ) -> None:
        check_request(split, num_points)
        class_names = read_class_names(folder)
        self.files = list_files(folder, "test" if split == "test" else "train")
        counts = [check_file(path, num_points, in_memory=False, features=features) for path in self.files]
        self.starts = np.cumsum([0, *counts])  # of each file's clouds, over all files
        labels = np.concatenate([read_labels(path, class_names) for path in self.files])
        self.rows = split_rows(labels, split, val_fraction, split_seed)  # of the split's clouds, over all files
        if len(self.rows) == 0:
            raise InputError(f"The {split} split holds no clouds; choose another split.")
        super().__init__(torch.from_numpy(labels[self.rows]), class_names, split)
        self._num_points, self.features = num_points, features
        self.part_bytes = buffer_bytes // PARTS
        for file in range(len(self.files)):
            self._check_chunks(file)
        self.frame = frame_of_folder(folder, self.files, features)

    @property
    def num_points(self) -> int:
        return self._num_points

    def first_points(self) -> Iterator[Tensor]:
        for file in range(len(self.files)):
            with self._open(file) as arrays:
                size = chunk_rows(arrays[0]) * max(1, SCANNED // chunk_rows(arrays[0]))  # whole chunks
                for first in range(0, len(arrays[0]), size):
                    points = read_rows(arrays, slice(first, first + size), 0).astype(np.float32, copy=False)
                    begin, end = np.searchsorted(self.rows, self.starts[file] + [first, first + len(points)])
                    yield torch.from_numpy(points[self.rows[begin:end] - self.starts[file] - first])

    def read(self, chosen: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield the clouds (b, num_points, C) of each of the `chosen` (b,) indices, while later ones are read.

        Raises:
            InputError: a file is gone, damaged or holds coordinates that are not finite.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(1, "stream") as reader:
            try:
                ready = None
                for window in self._windows(chosen):
                    ahead = window, reader.submit(self._fill, window, stop)
                    if ready is not None:
                        yield from copies(ready[0], ready[1].result())
                    ready = ahead
                if ready is not None:
                    yield from copies(ready[0], ready[1].result())
            finally:
                stop.set()  # or whoever stops early would wait for a whole window

    def _windows(self, chosen: Iterable[Tensor]) -> Iterator[list[Tensor]]:
        """Pack batches into windows that grow up to a part of the buffer; one batch at least."""
        most = self.part_bytes // (self.num_points * self.width * 4)
        window: list[Tensor] = []
        held, room = 0, 0
        for batch in chosen:
            if window and held + len(batch) > room:
                yield window
                window, held, room = [], 0, min(room * GROWTH, most)
            room = room or len(batch)
            window.append(batch)
            held += len(batch)
        if window:
            yield window

    def _fill(self, window: list[Tensor], stop: threading.Event) -> np.ndarray:
        """Read the clouds of a window: points (b, num_points, C) in the order in which they are wanted."""
        rows = self.rows[torch.cat(window).numpy()]
        points = np.empty((len(rows), self.num_points, self.width), np.float32)
        order = np.argsort(rows, kind="stable")
        edges = np.searchsorted(rows[order], self.starts)
        for file in np.flatnonzero(np.diff(edges)).tolist():
            places = order[edges[file] : edges[file + 1]]
            for chosen, clouds in self._chunks(file, rows[places] - self.starts[file]):
                for place, cloud in zip(places[chosen], clouds, strict=True):
                    points[place] = cloud
                if stop.is_set():
                    break
        return points

    def _chunks(self, file: int, rows: np.ndarray) -> Iterator[tuple[slice, list[np.ndarray]]]:
        """Yield which of a file's ascending `rows` (b,) lie in one chunk, and their clouds, a chunk at a time."""
        with self._open(file) as arrays:
            edges = np.flatnonzero(np.diff(rows // chunk_rows(arrays[0]))) + 1
            for begin, end in pairwise([0, *edges.tolist(), len(rows)]):
                first, last = int(rows[begin]), int(rows[end - 1])
                stored = read_rows(arrays, slice(first, last + 1), slice(self.num_points))
                check_points(self.files[file], stored, first)
                clouds = stored.astype(np.float32, copy=False)
                yield slice(begin, end), [clouds[row - first] for row in rows[begin:end]]

    @contextmanager
    def _open(self, file: int) -> Iterator[list[h5py.Dataset]]:
        """Open the points of a file, which still is what it was: its arrays, as `point_arrays` has them."""
        path = self.files[file]
        with open_hdf5(path) as opened:
            arrays = point_arrays(opened, self.features, in_memory=False)
            data = arrays[0]
            count = self.starts[file + 1] - self.starts[file]
            if data.ndim != 3 or len(data) != count or data.shape[1] < self.num_points or data.shape[2] != 3:
                raise InputError(f"{path} has changed while it was in use; start again.")
            yield arrays

    def _check_chunks(self, file: int) -> None:
        """Raise InputError where what is read at once is more than its part of the buffer."""
        with self._open(file) as arrays:
            data = arrays[0]
            needed = chunk_rows(data) * self.num_points * self.width * max(4, data.dtype.itemsize)
            needed = max(needed, *(chunk_bytes(array) for array in arrays))
            if any(array.chunks for array in arrays) and needed > self.part_bytes:
                raise InputError(
                    f"{self.files[file]} is stored in chunks of {needed / 1e6:.1f} MB, of which the buffer must hold "
                    f"{PARTS}: set --stream-buffer {-(-PARTS * needed // 10**6)}, or store it anew in smaller ones "
                    "(h5repack -l CONTI)."
                )


def chunk_rows(data: h5py.Dataset) -> int:
    """Clouds that are read together whatever is wanted of them."""
    return data.chunks[0] if data.chunks else 1


def copies(window: list[Tensor], points: np.ndarray) -> Iterator[Tensor]:
    """Yield the batches of a window, which nobody who keeps one keeps."""
    for batch in torch.from_numpy(points).split([len(batch) for batch in window]):
        yield batch.clone()
