"""Polygons over numbered vertices, as mesh files have them, cut into triangles."""

from typing import Any

import mapbox_earcut
import numpy as np

MAX_TRIANGLES = 1 << 23
MAX_EARS = 1 << 27  # squared corners, in sum, of the polygons that are cut ear by ear: some seconds at worst
FEW_CORNERS = 64  # below which a polygon's own bytes pay for cutting it

Shape = np.ndarray  # triangles (T, 3, 3), or where there are none the points (N, 3)


def make_shape(vertices: Any, faces: Any, counts: Any = None) -> Shape:
    """Triangles of polygons over vertices (V, 3); where there are no polygons, the vertices themselves.

    Convex polygons are cut into fans, others ear by ear: no triangle leaves its polygon.

    Args:
        vertices: (V, 3) coordinates; more columns are what else is known there, and come with the corners.
        faces: (F, n) numbers of vertices or, with `counts`, all polygons' numbers one after the other.
        counts: (F,) corners of each polygon. Those of fewer than three have no area and give nothing.

    Raises:
        ValueError: a number names no vertex, or there would be more than `MAX_TRIANGLES`.
    """
    vertices = np.asarray(vertices, np.float64)
    if vertices.ndim != 2 or vertices.shape[1] < 3:
        raise ValueError(f"its vertices come as {vertices.shape}, not three numbers each")
    if faces is None or len(faces) == 0:
        return vertices
    faces = np.asarray(faces)
    if counts is None:
        if faces.ndim != 2 or faces.shape[1] < 3:
            raise ValueError(f"its faces come as {faces.shape}, not three corners or more each")
        counts = np.full(len(faces), faces.shape[1])
    counts, corners = np.asarray(counts, np.int64), faces.reshape(-1)
    if np.maximum(counts - 2, 0).sum() > MAX_TRIANGLES:
        raise ValueError(f"it has more than {MAX_TRIANGLES} triangles")
    if not (corners.min() >= 0 and corners.max() < len(vertices)):  # also where one is NaN
        raise ValueError("a face names a vertex that there is not")
    if corners.dtype.kind == "f" and (corners != np.trunc(corners)).any():
        raise ValueError("a face names a vertex by a number that is not whole")
    starts, corners = np.cumsum(counts) - counts, corners.astype(np.int64)
    parts: list[Shape] = [np.empty((0, 3, vertices.shape[1]))]
    ears = 0
    for count in np.unique(counts[counts >= 3]):
        rows = corners[starts[counts == count][:, None] + np.arange(count)]  # (F of this many corners, count)
        if count == 3:
            parts.append(vertices[rows])
            continue
        polygons, reflex, normals = _measure(vertices[:, :3], rows)
        concave = reflex.any(1) & (count > 4)
        if count == 4:  # from its reflex corner a quadrilateral is a fan as well
            rows = np.take_along_axis(rows, (np.arange(4) + reflex.argmax(1)[:, None]) % 4, axis=1)
        fan = np.stack([np.zeros(count - 2, int), np.arange(1, count - 1), np.arange(2, count)], axis=1)  # (n − 2, 3)
        parts.append(vertices[rows[~concave][:, fan].reshape(-1, 3)])
        if count > FEW_CORNERS:
            ears += int(concave.sum()) * int(count) ** 2
        if ears > MAX_EARS:
            raise ValueError("its concave polygons have too many corners; cut them into triangles first")
        parts += [vertices[rows[i][_ears(polygons[i], normals[i])]] for i in np.flatnonzero(concave)]
    triangles: Shape = np.concatenate(parts)
    if len(triangles) == 0:
        raise ValueError("none of its faces has three corners")
    return triangles


def strip_triangles(corners: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Triangles (T, 3) of strips, in each of which three corners in a row are one; −1 begins another strip.

    Args:
        corners: all strips' corners, one strip after the other.
        counts: (S,) how many each strip has.
    """
    if len(corners) < 3:
        return np.empty((0, 3), np.int64)
    if corners.min() < -1:
        raise ValueError("a strip names a vertex that there is not")
    triples = np.lib.stride_tricks.sliding_window_view(corners, 3)
    strip = np.repeat(np.arange(len(counts)), counts)
    triangles: np.ndarray = triples[(strip[:-2] == strip[2:]) & (triples >= 0).all(1)]
    return triangles


def _measure(vertices: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polygons (F, n, 3) each about its first corner and of size 1, which corners turn back (F, n), normals (F, 3)."""
    polygons = vertices[rows]
    with np.errstate(all="ignore"):  # of polygons that are a point, or not finite
        polygons = polygons - polygons[:, :1]
        polygons /= np.abs(polygons).max(axis=(1, 2), keepdims=True)
        edges = np.roll(polygons, -1, axis=1) - polygons
        turns = np.cross(np.roll(edges, 1, axis=1), edges)
        normals = np.cross(polygons, np.roll(polygons, -1, axis=1)).sum(1)  # Newell's
        return polygons, (turns * normals[:, None]).sum(2) < -1e-12, normals


def _ears(polygon: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Corners (T, 3) of the triangles of one polygon (n, 3), seen along the axis nearest to its normal."""
    seen = np.ascontiguousarray(np.delete(polygon, np.abs(normal).argmax(), axis=1))
    return mapbox_earcut.triangulate_float64(seen, np.array([len(seen)], np.uint32)).reshape(-1, 3).astype(np.int64)
