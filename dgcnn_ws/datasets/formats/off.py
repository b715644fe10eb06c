"""OFF meshes, from bytes that nobody vouches for."""

import io
import re
import warnings

import numpy as np
from trimesh.exchange.off import load_off

from dgcnn_ws.datasets.formats.polygons import Shape, make_shape


def read_off(data: bytes) -> Shape:
    """OFF, also with a header that runs on (`OFF490 518 0`), as some of ModelNet's do."""
    shape = _read_plain_off(data)
    if shape is None:  # colours, polygons, or damage
        loaded = load_off(io.BytesIO(data))
        shape = make_shape(loaded["vertices"], loaded["faces"])
    return shape


def _read_plain_off(data: bytes) -> Shape | None:
    """Coordinates and triangles alone, as all of ModelNet: several times faster and leaner than line by line."""
    text = re.sub(rb"#[^\n]*", b"", data)
    header = re.match(rb"\s*OFF\s*(\d+)\s+(\d+)\s+(\d+)\s", text)
    if header is None:
        return None
    num_vertices, num_faces = int(header[1]), int(header[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that is not numbers
        try:
            numbers = np.fromstring(text[header.end() :], sep=" ")
        except (DeprecationWarning, ValueError):
            return None
    if len(numbers) != 3 * num_vertices + 4 * num_faces:
        return None
    faces = numbers[3 * num_vertices :].reshape(-1, 4)
    if (faces[:, 0] != 3).any():
        return None
    return make_shape(numbers[: 3 * num_vertices].reshape(-1, 3), faces[:, 1:])
