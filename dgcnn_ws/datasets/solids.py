"""Surfaces cut into triangles: boxes, rods, bodies of revolution and bent sheets, and points upon them."""

import numpy as np

Triangles = np.ndarray  # (T, 3, 3): corners by coordinates x, y (up), z

CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (0.0, 1.0) for z in (-0.5, 0.5)])
FACES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
CUBE = CORNERS[FACES[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)]  # (12, 3, 3), standing on y = 0


def box(x: float, y: float, z: float, width: float, height: float, depth: float, taper: float = 1.0) -> Triangles:
    """A box that stands on height y around (x, z); `taper` scales its top face."""
    triangles = CUBE.copy()
    triangles[..., [0, 2]] *= 1 + (taper - 1) * triangles[..., 1:2]
    placed: Triangles = triangles * (width, height, depth) + (x, y, z)
    return placed


def sheet(grid: np.ndarray) -> Triangles:
    """The surface through a grid of points (U, V, 3)."""
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[:-1, 1:], grid[1:, 1:]
    return np.stack([np.stack([a, b, c], axis=-2), np.stack([b, d, c], axis=-2)]).reshape(-1, 3, 3)


def revolve(radii: list[float] | np.ndarray, heights: list[float] | np.ndarray, oval: float = 1.0) -> Triangles:
    """The body of revolution about the y axis through (radius, height) pairs; `oval` scales its depth."""
    angle = np.linspace(0, 2 * np.pi, 25)
    radius, height = np.broadcast_arrays(np.asarray(radii)[:, None], np.asarray(heights)[:, None])
    circle = np.stack([radius * np.cos(angle), height + 0 * angle, radius * oval * np.sin(angle)], axis=-1)
    return sheet(circle)


def disc(y: float, radius: float, height: float, oval: float = 1.0) -> Triangles:
    """A closed cylinder that stands on height y."""
    return revolve([0, radius, radius, 0], [y, y, y + height, y + height], oval)


def rod(start: tuple[float, ...], end: tuple[float, ...], radius: float, end_radius: float | None = None) -> Triangles:
    """A round rod between two points, thinner or thicker at its end."""
    first, last = np.asarray(start, float), np.asarray(end, float)
    length = float(np.linalg.norm(last - first))
    axis = (last - first) / length
    side = np.cross(axis, (1.0, 0.0, 0.0) if abs(axis[0]) < 0.8 else (0.0, 1.0, 0.0))
    side /= np.linalg.norm(side)
    tip = radius if end_radius is None else end_radius
    body = revolve([0, radius, tip, 0], [0, 0, length, length])
    placed: Triangles = body @ np.stack([side, axis, np.cross(side, axis)]) + first
    return placed


def turn(triangles: Triangles, axis: int, angle: float, pivot: tuple[float, ...] = (0, 0, 0)) -> Triangles:
    """Rotation about a coordinate axis through `pivot`, in radians."""
    turned: Triangles = (triangles - pivot) @ rotation(axis, angle).T + pivot
    return turned


def rotation(axis: int, angle: float) -> np.ndarray:
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def curve(radii: list[float], height: float) -> tuple[np.ndarray, np.ndarray]:
    """A smooth outline through radii at equal steps of height."""
    position = np.linspace(0, len(radii) - 1, 16)
    index = np.minimum(position.astype(int), len(radii) - 2)
    blend = (1 - np.cos(np.pi * (position - index))) / 2
    values = np.asarray(radii)
    return values[index] * (1 - blend) + values[index + 1] * blend, position / (len(radii) - 1) * height


def grip(x: float, y: float, reach: float, height: float, radius: float) -> Triangles:
    """A handle: a tube on a half ellipse that starts and ends at x."""
    angle, around = np.linspace(-np.pi / 2, np.pi / 2, 10)[:, None], np.linspace(0, 2 * np.pi, 9)
    out = 1 + radius / reach * np.cos(around)
    grid = [x + reach * out * np.cos(angle), y + height / 2 * out * np.sin(angle), radius * np.sin(around)]
    return sheet(np.stack(np.broadcast_arrays(*grid), axis=-1))


def sample_surface(triangles: Triangles, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points (count, 3) spread evenly by area, and the index (count,) of the triangle each lies on.

    Of corners with more than three coordinates, (T, 3, C), these too are those of the place, (count, C).
    """
    edges = triangles[:, 1:] - triangles[:, :1]
    area = np.cumsum(np.linalg.norm(np.cross(edges[:, 0, :3], edges[:, 1, :3]), axis=1))
    chosen = np.searchsorted(area, rng.random(count) * area[-1], side="right")
    weight = rng.random((count, 2, 1))
    weight = np.where(weight.sum(1, keepdims=True) > 1, 1 - weight, weight)
    points = triangles[chosen, 0] + (weight * edges[chosen]).sum(1)
    return points, chosen
