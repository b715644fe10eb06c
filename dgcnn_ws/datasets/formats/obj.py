"""Wavefront OBJ meshes, from bytes that nobody vouches for."""

import io
import re

import numpy as np

from dgcnn_ws.datasets.formats.encoding import numbers, plain_text
from dgcnn_ws.datasets.formats.polygons import Shape, make_shape

OTHER_SURFACES = re.compile(rb"(?m)^(?:surf|cstype|curv2?|bzp|bsp|cdc|cdp|res)\b")


def read_obj(data: bytes) -> Shape:
    """OBJ: its vertices and faces, numbered from the first or back from the last; no materials, no other files.

    A file without faces, lines and curved surfaces is a cloud.
    """
    text = re.sub(rb"#.*", b"", re.sub(rb"\\[ \t]*\n", b" ", plain_text(data)))
    text = re.sub(rb"(?m)^[ \t]+", b"", text)
    vertices = list(re.finditer(rb"(?m)^v[ \t](.*)$", text))
    faces = list(re.finditer(rb"(?m)^f[ \t](.*)$", text))
    if OTHER_SURFACES.search(text):
        raise ValueError("it has curved surfaces, which are not read here; export polygons")
    table = b"\n".join(line[1] for line in vertices).decode("ascii", "replace")
    if not table.strip():
        raise ValueError("it has no vertices (lines that begin with v)")
    try:
        points = np.loadtxt(io.StringIO(table), ndmin=2, usecols=(0, 1, 2), comments=None)
    except ValueError as error:
        raise ValueError("a vertex has fewer than three coordinates, or one that is no number") from error
    if len(points) != len(vertices):
        raise ValueError("a vertex has no coordinates")
    if not faces:
        if re.search(rb"(?m)^l[ \t]", text):
            raise ValueError("it is a drawing of lines, without faces")
        return make_shape(points, None)
    rows = re.sub(rb"/[^\s]*", b"", b"\n".join(line[1] for line in faces))  # 1/2/3 -> 1
    counts = np.array([len(row.split()) for row in rows.split(b"\n")])
    corners = numbers(rows)
    if len(corners) != counts.sum() or (corners != np.trunc(corners)).any() or (corners == 0).any():
        raise ValueError("a face names its vertices by other than whole numbers from 1")
    # A negative number counts back from the last vertex before the face's own line.
    before = np.searchsorted([line.start() for line in vertices], [line.start() for line in faces])
    corners = np.where(corners < 0, corners + np.repeat(before, counts), corners - 1)
    return make_shape(points, corners, counts)
