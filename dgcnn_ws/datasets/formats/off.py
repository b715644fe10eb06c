"""OFF meshes (http://www.geomview.org/docs/html/OFF.html), from bytes that nobody vouches for."""

import re

import numpy as np

from dgcnn_ws.datasets.formats.encoding import numbers, plain_text
from dgcnn_ws.datasets.formats.polygons import Shape, make_shape

# Some of ModelNet's headers run on: `OFF490 518 0`. Colours, normals and texture coordinates follow a vertex's own.
HEADER = re.compile(rb"\s*(?:ST)?C?N?(4?n?)OFF\s*(BINARY)?\s*(\d+)[ \t]+(\d+)(?:[ \t]+\d+)?\s")


def read_off(data: bytes) -> Shape:
    """OFF: triangles and polygons of any number of corners, with colours or without; a cloud where there are none."""
    text = re.sub(rb"#[^\n]*", b"", plain_text(data))
    header = HEADER.match(text + b"\n")
    if header is None:
        raise ValueError("it does not begin with OFF and the numbers of vertices and faces")
    if header[1] or header[2]:
        raise ValueError("it is binary or has other than three dimensions, which is not read here; export as ASCII OFF")
    num_vertices, num_faces, body = int(header[3]), int(header[4]), text[header.end() :]
    shape = _read_numbers_alone(body, num_vertices, num_faces)
    return _read_lines(body, num_vertices, num_faces) if shape is None else shape


def _read_numbers_alone(body: bytes, num_vertices: int, num_faces: int) -> Shape | None:
    """Coordinates, and polygons of one kind, as all of ModelNet: several times faster and leaner than line by line."""
    try:
        values = numbers(body)
    except ValueError:
        return None
    rest = len(values) - 3 * num_vertices
    if num_faces == 0 or rest <= 0 or rest % num_faces:
        return None
    faces = values[3 * num_vertices :].reshape(num_faces, -1)
    if (faces[:, 0] != faces.shape[1] - 1).any():
        return None
    return make_shape(values[: 3 * num_vertices].reshape(-1, 3), faces[:, 1:])


def _read_lines(body: bytes, num_vertices: int, num_faces: int) -> Shape:
    rows = [row for row in (line.split() for line in body.split(b"\n")) if row]
    if len(rows) != num_vertices + num_faces:
        raise ValueError(f"it has {len(rows)} lines, not one for each of {num_vertices} vertices and {num_faces} faces")
    vertices = [[float(word) for word in row[:3]] for row in rows[:num_vertices]]
    if any(len(vertex) < 3 for vertex in vertices):
        raise ValueError("a vertex has fewer than three coordinates")
    counts, corners = [], []
    for row in rows[num_vertices:]:
        count = int(row[0])
        if not 0 <= count < len(row):
            raise ValueError(f"a face of {count} corners names {len(row) - 1}")
        counts.append(count)
        corners += [int(word) for word in row[1 : count + 1]]
    return make_shape(np.reshape(vertices, (-1, 3)), corners, counts)
