"""Clouds as NumPy arrays, from bytes that nobody vouches for. No pickle is ever opened."""

import io
import zipfile

import numpy as np

NAMES = ("points", "pos", "xyz", "data")  # what a cloud is called in an archive of several arrays
MAX_ARRAY_BYTES = 1 << 29  # a compressed array's size is declared, not seen


def read_npy(data: bytes) -> np.ndarray:
    """A .npy array (N, 3 or more): the first three columns."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version > (2, 0):
        raise ValueError(f".npy version {version}, which numbers do not need")
    read_header = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
    shape, by_columns, dtype = read_header(stream)
    if dtype.kind not in "fiu":
        raise ValueError(f"an array of {dtype}, not of numbers")
    # From the bytes there are, so that no memory is taken for those that a header only claims.
    values = np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape, order="F" if by_columns else "C")
    return three_columns(values)


def read_npz(data: bytes) -> np.ndarray:
    """A .npz archive's only array, or the one called `points`, `pos`, `xyz` or `data`."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        name = next((name for name in NAMES if name in members), None)
        if name is None and len(members) == 1:
            name = next(iter(members))
        if name is None:
            raise ValueError(f"several arrays, none called {' or '.join(NAMES)}")
        if members[name].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # of unbounded memory
            raise ValueError("an array that is not packed by deflate")
        if members[name].file_size > MAX_ARRAY_BYTES:
            raise ValueError(f"an array of more than {MAX_ARRAY_BYTES} bytes")
        return read_npy(archive.read(members[name]))


def three_columns(values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or values.shape[1] < 3:
        raise ValueError(f"an array of shape {values.shape}, where a cloud is (points, 3)")
    return values[:, :3].astype(np.float64)
