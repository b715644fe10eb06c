"""PLY meshes and clouds, from bytes that nobody vouches for.

The format is Greg Turk's (Stanford, 1994): a header of elements, then their rows of numbers and lists of numbers.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dgcnn_ws.datasets.formats.encoding import numbers, plain_text
from dgcnn_ws.datasets.formats.features import with_features
from dgcnn_ws.datasets.formats.polygons import Shape, make_shape, strip_triangles

TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
TYPES |= {"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"}
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
CORNERS = ("vertex_indices", "vertex_index")
SURFACES = ("face", "tristrips")
NO_SURFACES = ("vertex", "range_grid", "camera", "material")  # what may stand in a cloud's file
SPLATS = ({"f_dc_0", "opacity"}, {"scale_0", "rot_0"}, {"packed_position"})
MAX_HEADER = 1 << 20


@dataclass
class Element:
    """One kind of rows: how many, and what stands in each: properties by name, (type of a list's length, type).

    Text is read as float64, whatever type is `declared`.
    """

    name: str
    count: int
    properties: dict[str, tuple[np.dtype | None, np.dtype]] = field(default_factory=dict)
    declared: dict[str, str] = field(default_factory=dict)


@dataclass
class Rows:
    """An element's contents: each property's values and, where they are lists, how many are each row's (count,)."""

    values: dict[str, np.ndarray] = field(default_factory=dict)
    counts: dict[str, np.ndarray] = field(default_factory=dict)


def read_ply(data: bytes, features: Sequence[str] = ()) -> Shape:
    """PLY, ASCII or binary: polygons and triangle strips; a cloud where it has no kind of surface.

    Features are those of its vertices; of a surface all but the normals, which it has itself.
    """
    elements, body = _read_header(data)
    rows = _read_elements(elements, body)
    vertex = rows["vertex"].values if "vertex" in rows else {}
    if any(marks <= vertex.keys() for marks in SPLATS):
        raise ValueError(
            "it holds Gaussian splats, whose centres are no surface and of which some cannot be seen; "
            "make a mesh or a cloud of them first"
        )
    if not set("xyz") <= vertex.keys():
        raise ValueError("its vertices have no x, y and z")
    points = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
    polygons = [_polygons(name, rows[name]) for name in SURFACES if name in rows]
    if any(len(counts) for _, counts in polygons):
        corners, counts = (np.concatenate(parts) for parts in zip(*polygons, strict=True))
        at_corners = [name for name in features if name != "normals"]
        return make_shape(with_features(points, _columns(elements, vertex), at_corners), corners, counts)
    unread = [e.name for e in elements if e.count and e.name not in NO_SURFACES and e.name not in SURFACES]
    if unread:
        raise ValueError(f"it has no faces but elements called {unread[0]!r}, which are not read here; export faces")
    return make_shape(with_features(points, _columns(elements, vertex), features), None)


def _columns(elements: list[Element], vertex: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The vertices' columns in the types that the header declares."""
    declared = next(element.declared for element in elements if element.name == "vertex")
    rows = len(vertex["x"])
    return {name: values.astype(TYPES[declared[name]]) for name, values in vertex.items() if len(values) == rows}


def _read_header(data: bytes) -> tuple[list[Element], bytes]:
    """The elements that a file says it has, and the bytes of their rows: text becomes binary numbers first."""
    is_text = re.search(rb"(?m)^[ \t]*format[ \t]+ascii\b", plain_text(data[:MAX_HEADER])) is not None
    data = plain_text(data) if is_text else data
    end = re.search(rb"(?:^|[\r\n])[ \t]*end_header[ \t]*(?:\r\n|\n|\r)", data[:MAX_HEADER])
    if not data.lstrip().startswith(b"ply") or end is None:
        raise ValueError("it has no header from ply to end_header")
    order = ""
    elements: list[Element] = []
    for line in re.split(r"[\r\n]+", data[: end.start()].decode("ascii", "replace")):
        match line.split():
            case ["format", word, *_] if not is_text:
                order = ORDERS[word]
            case ["element", name, count]:
                elements.append(Element(name, int(count)))
            case ["property", *words, name]:
                if len(words) not in (1, 3) or (len(words) == 3 and words.pop(0) != "list"):
                    raise ValueError(f"its header has a line that is none of PLY's: {line.strip()}")
                if name in elements[-1].properties:
                    raise ValueError(f"its header names {name!r} twice")
                types = [np.dtype("f8" if is_text else order + TYPES[word]) for word in words]
                elements[-1].declared[name] = words[-1]
                elements[-1].properties[name] = types[0] if len(types) == 2 else None, types[-1]
    if any(element.count < 0 for element in elements) or len({e.name for e in elements}) < len(elements):
        raise ValueError("its header counts below zero, or names an element twice")
    body = data[end.end() :]
    return elements, numbers(body).tobytes() if is_text else body


def _read_elements(elements: list[Element], body: bytes) -> dict[str, Rows]:
    """The rows of each element, up to the last that may matter."""
    wanted = [i for i, element in enumerate(elements) if element.name in ("vertex", *SURFACES)]
    rows: dict[str, Rows] = {}
    place = 0
    for element in elements[: wanted[-1] + 1 if wanted else 0]:
        rows[element.name], place = _read_equal_rows(element, body, place) or _read_any_rows(element, body, place)
    return rows


def _read_equal_rows(element: Element, body: bytes, place: int) -> tuple[Rows, int] | None:
    """Rows that take the same bytes each, as most do, and where they end; None where lists differ in length."""
    lengths: dict[str, int] = {}
    size = 0
    for name, (length, kind) in element.properties.items():
        if length is not None:
            lengths[name] = _number(body, place + size, length) if element.count else 0
            size += length.itemsize
        size += kind.itemsize * lengths.get(name, 1)
    if element.count * size > len(body) - place:
        if lengths:
            return None
        raise ValueError(f"it ends before its {element.count} rows called {element.name!r} do")
    table = np.frombuffer(body, np.uint8)[place : place + element.count * size].reshape(element.count, size)
    rows, at = Rows(), 0

    def take(kind: np.dtype, number: int) -> np.ndarray:
        nonlocal at
        at += kind.itemsize * number
        return np.ascontiguousarray(table[:, at - kind.itemsize * number : at]).view(kind).reshape(-1)

    for name, (length, kind) in element.properties.items():
        if length is not None:
            rows.counts[name] = take(length, 1)
            if (rows.counts[name] != lengths[name]).any():
                return None
        rows.values[name] = take(kind, lengths.get(name, 1))
    return rows, place + element.count * size


def _read_any_rows(element: Element, body: bytes, place: int) -> tuple[Rows, int]:
    """Rows of lists of any lengths, one by one, and where they end."""
    values: dict[str, list[bytes]] = {name: [] for name in element.properties}
    counts: dict[str, list[int]] = {name: [] for name in element.properties}
    for _ in range(element.count):
        for name, (length, kind) in element.properties.items():
            number = 1
            if length is not None:
                number = _number(body, place, length)
                place += length.itemsize
                counts[name].append(number)
            values[name].append(body[place : place + number * kind.itemsize])
            place += number * kind.itemsize
        if place > len(body):
            raise ValueError(f"it ends before its {element.count} rows called {element.name!r} do")
    rows = Rows(counts={name: np.array(lengths) for name, lengths in counts.items() if lengths})
    for name, (_, kind) in element.properties.items():
        rows.values[name] = np.frombuffer(b"".join(values[name]), kind)
    return rows, place


def _number(body: bytes, place: int, kind: np.dtype) -> int:
    """The length of a list, from its bytes."""
    if place + kind.itemsize > len(body):
        raise ValueError("it ends within its lists")
    (number,) = struct.unpack_from(kind.str[0].replace("|", "=") + kind.char, body, place)
    if not number >= 0 or number != int(number):
        raise ValueError(f"a list has {number:g} values")
    return int(number)


def _polygons(name: str, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """All corners of an element's polygons, and how many each has (F,)."""
    corners = next((corners for corners in CORNERS if corners in rows.counts), None)
    if corners is None:
        if any(len(values) for values in rows.values.values()):
            raise ValueError(f"its elements called {name!r} have no list called {CORNERS[0]}")
        return np.empty(0, np.int64), np.empty(0, np.int64)
    if name == "tristrips":
        triangles = strip_triangles(rows.values[corners], rows.counts[corners].astype(np.int64))
        return triangles.reshape(-1), np.full(len(triangles), 3)
    return rows.values[corners], rows.counts[corners].astype(np.int64)
