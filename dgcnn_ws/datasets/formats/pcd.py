"""PCD clouds of the Point Cloud Library (https://pointclouds.org/documentation/tutorials/pcd_file_format.html)."""

import re
from collections.abc import Sequence

import numpy as np

from dgcnn_ws.datasets.formats.encoding import numbers, plain_text
from dgcnn_ws.datasets.formats.features import with_features
from dgcnn_ws.extras import need

MAX_EXPANSION = 100  # LZF makes at most 264 bytes of 3
KINDS = {"F": "f", "I": "i", "U": "u"}


def read_pcd(data: bytes, features: Sequence[str] = ()) -> np.ndarray:
    """The points (N, 3 + D) of a PCD of any of the three encodings; rows of NaN are what the scanner did not see."""
    end = re.search(rb"(?m)^DATA[ \t]+(\w+)[ \t]*\r?\n", data[: 1 << 16])
    if end is None:
        raise ValueError("it has no header that ends in a line DATA")
    text = plain_text(data[: end.start()]).decode("ascii", "replace")
    header = {words[0]: words[1:] for words in map(str.split, text.split("\n")) if words}
    names, sizes, kinds = header["FIELDS"], [int(size) for size in header["SIZE"]], header["TYPE"]
    counts = [int(count) for count in header.get("COUNT", ["1"] * len(names))]
    if not len(names) == len(sizes) == len(kinds) == len(counts) or min(sizes) < 1 or min(counts) < 0:
        raise ValueError("its header's lines FIELDS, SIZE, TYPE and COUNT do not agree")
    unique = [name if names.index(name) == i and name != "_" else f"_{i}" for i, name in enumerate(names)]
    types = [f"<{KINDS[kind]}{size}" for kind, size in zip(kinds, sizes, strict=True)]
    rows = np.dtype([(name, kind, (count,)) for name, kind, count in zip(unique, types, counts, strict=True)])
    points = int(header["POINTS"][0]) if "POINTS" in header else int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    body, encoding = data[end.end() :], end[1].decode().lower()
    if points < 0:
        raise ValueError("its header counts points below zero")
    if encoding == "ascii":
        values = numbers(plain_text(body))
        if len(values) != points * sum(counts):
            raise ValueError(f"it has {len(values)} numbers, not {points} rows of {sum(counts)}")
        starts = np.cumsum([0, *counts])
        table = values.reshape(points, sum(counts))
        columns = {
            name: as_declared(table[:, start], rows[name].base) for name, start in zip(unique, starts, strict=False)
        }
        return named_columns(columns, features)
    if encoding == "binary_compressed":
        packed, size = (int(n) for n in np.frombuffer(body[:8], "<u4"))
        if size != points * rows.itemsize or size > MAX_EXPANSION * len(body) + 1024 or packed > len(body) - 8:
            raise ValueError("its compressed part is not of the size that it says")
        body = (
            need("lzf", "formats", ".pcd that is compressed", "python-lzf").decompress(body[8 : 8 + packed], size)
            or b""
        )
        columns, at = {}, 0
        for name in unique:  # column by column
            kind = rows[name].base
            length = points * rows[name].itemsize
            if name in "xyz" or (features and length):
                columns[name] = np.frombuffer(body[at : at + length], kind).reshape(points, -1)[:, 0]
            at += length
        return named_columns(columns, features)
    if encoding != "binary":
        raise ValueError(f"its data are {encoding}, which is none of PCD's encodings")
    if points * rows.itemsize > len(body):
        raise ValueError(f"it ends before its {points} points do")
    table = np.frombuffer(body, rows, points)
    return named_columns({name: table[name][:, 0] for name in unique if rows[name].shape != (0,)}, features)


def as_declared(values: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Numbers (N,) of text in the type that the header declares; a float's, where whole numbers would not hold it."""
    if kind.kind == "f":
        return values.astype(kind)
    bounds = np.iinfo(kind)
    inside = np.isfinite(values) & (values >= bounds.min) & (values <= bounds.max)
    return values.astype(kind) if inside.all() else values


def named_columns(columns: dict[str, np.ndarray], features: Sequence[str]) -> np.ndarray:
    """Points (N, 3 + D) float64 of columns called x, y and z, and the features'; a colour may be packed in one."""
    if not set("xyz") <= columns.keys():
        raise ValueError(f"its fields are called {', '.join(columns)}, and not x, y and z")
    points = np.stack([columns[axis] for axis in "xyz"], axis=1).astype(np.float64)
    packed = next((columns[name] for name in ("rgb", "rgba") if name in columns), None)
    if "colour" in features and packed is not None and packed.dtype.itemsize == 4:
        bits = np.ascontiguousarray(packed).view("<u4")
        columns = columns | {
            name: (bits >> at & 255).astype(np.uint8) for name, at in zip("rgb", (16, 8, 0), strict=True)
        }
    return with_features(points, columns, features)
