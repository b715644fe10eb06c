"""Polygons over numbered vertices, as mesh files have them, cut into triangles."""

from typing import Any

import numpy as np

MAX_TRIANGLES = 1 << 23

Shape = np.ndarray  # triangles (T, 3, 3), or where there are none the points (N, 3)


def make_shape(vertices: Any, faces: Any) -> Shape:
    """Triangles of polygons (F, n) over vertices (V, 3), each cut into a fan; the vertices where there is none."""
    vertices = np.asarray(vertices, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"vertices of shape {vertices.shape}")
    if faces is None or len(faces) == 0:
        return vertices
    faces = np.asarray(faces)
    if faces.ndim != 2 or faces.shape[1] < 3:
        raise ValueError(f"faces of shape {faces.shape}")
    if faces.shape[0] * (faces.shape[1] - 2) > MAX_TRIANGLES:
        raise ValueError(f"more than {MAX_TRIANGLES} triangles")
    if not (faces.min() >= 0 and faces.max() < len(vertices)):  # also where one is NaN
        raise ValueError("a face names a vertex that there is not")
    corners = np.arange(1, faces.shape[1] - 1)
    fan = np.stack([np.zeros_like(corners), corners, corners + 1], axis=1)  # (n − 2, 3)
    triangles: Shape = vertices[faces[:, fan].reshape(-1, 3).astype(np.int64)]
    return triangles
