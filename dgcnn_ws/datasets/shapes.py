"""Shapes: a procedural data set of furniture and household objects, for work without downloads.

Every cloud is a random assembly of boxes, rods, bodies of revolution and bent sheets, cut into triangles and
sampled by area. Classes come in families that differ in one trait (stool and chair in the back, cup and vase
in the handle) while their proportions overlap, and part of the surface is missing, so it is not trivial.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from dgcnn_ws.datasets.modelnet import LAYOUT_SUFFIX, HDF5Clouds, read_lines
from dgcnn_ws.errors import InputError

# How hard the set is. A change makes folders written before it unusable, which they then say.
DIFFICULTY = {
    "axis_scale": 0.2,  # each axis is stretched by exp(U(-a, a)): proportions of different classes overlap
    "yaw": 0.5,  # rotation about the up axis, U(-a, a) rad
    "tilt": 0.05,  # rotation about the two horizontal axes, N(0, a) rad
    "missing": 0.06,  # probability that an optional piece (one leg, one handle...) is left out
    "hole": 0.35,  # up to this share of the surface, around a random point, is not seen: U(0, a)
    "jitter": 0.008,  # noise on every coordinate, N(0, a) in units of the cloud's radius
}
VERSION = 1  # of the geometry below
SEED = 0
STORED_POINTS = 2048
PER_CLASS = {"train": 100, "test": 25}
PART_NAMES = [
    "arm",
    "back",
    "base",
    "body",
    "door",
    "drawer",
    "handle",
    "leg",
    "seat",
    "shade",
    "shelf",
    "top",
]
OPTIONAL_PARTS = {"arm", "door", "drawer", "handle", "leg", "shelf"}

Triangles = np.ndarray  # (T, 3, 3): corners by coordinates x, y (up), z
Piece = tuple[str, Triangles]  # a part name and its surface
Random = np.random.Generator


# ---- surfaces

CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (0.0, 1.0) for z in (-0.5, 0.5)])
FACES = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
CUBE = CORNERS[FACES[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)]  # (12, 3, 3), standing on y = 0


def box(
    x: float, y: float, z: float, width: float, height: float, depth: float, taper: float = 1.0
) -> Triangles:
    """A box that stands on height y around (x, z); `taper` scales its top face."""
    triangles = CUBE.copy()
    triangles[..., [0, 2]] *= 1 + (taper - 1) * triangles[..., 1:2]
    placed: Triangles = triangles * (width, height, depth) + (x, y, z)
    return placed


def sheet(grid: np.ndarray) -> Triangles:
    """The surface through a grid of points (U, V, 3)."""
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[:-1, 1:], grid[1:, 1:]
    return np.stack([np.stack([a, b, c], axis=-2), np.stack([b, d, c], axis=-2)]).reshape(-1, 3, 3)


def revolve(
    radii: list[float] | np.ndarray, heights: list[float] | np.ndarray, oval: float = 1.0
) -> Triangles:
    """The body of revolution about the y axis through (radius, height) pairs; `oval` scales its depth."""
    angle = np.linspace(0, 2 * np.pi, 25)
    radius, height = np.broadcast_arrays(np.asarray(radii)[:, None], np.asarray(heights)[:, None])
    circle = np.stack([radius * np.cos(angle), height + 0 * angle, radius * oval * np.sin(angle)], axis=-1)
    return sheet(circle)


def disc(y: float, radius: float, height: float, oval: float = 1.0) -> Triangles:
    """A closed cylinder that stands on height y."""
    return revolve([0, radius, radius, 0], [y, y, y + height, y + height], oval)


def rod(
    start: tuple[float, ...], end: tuple[float, ...], radius: float, end_radius: float | None = None
) -> Triangles:
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


# ---- pieces that several classes share


def stand(rng: Random, width: float, depth: float, height: float, styles: str) -> list[Piece]:
    """What carries a top: `styles` is a choice of (r)ods, (p)osts, (s)ide panels, (c)olumn on a base."""
    style = rng.choice(list(styles))
    x, z, thick = width / 2, depth / 2, rng.uniform(0.03, 0.09)
    if style == "c":
        radius = rng.uniform(0.25, 0.45) * min(width, depth)
        base = disc(0, radius, 0.06) if rng.random() < 0.6 else box(0, 0, 0, 2 * radius, 0.06, 2 * radius)
        return [("leg", rod((0, 0, 0), (0, height, 0), 1.3 * thick)), ("base", base)]
    if style == "s":
        panel = depth * rng.uniform(0.7, 1)
        return [("leg", box(side * (x - thick), 0, 0, thick, height, panel)) for side in (-1, 1)]
    pieces: list[Piece] = []
    splay, inset = rng.uniform(1, 1.25), rng.uniform(0.7, 0.95)
    for i, j in ((-x, -z), (-x, z), (x, -z), (x, z)):
        if style == "p":
            leg = box(i * inset, 0, j * inset, 1.6 * thick, height, 1.6 * thick)
        else:
            foot = (i * inset * splay, 0, j * inset * splay)
            leg = rod(foot, (i * inset, height, j * inset), thick / 2, thick)
        pieces.append(("leg", leg))
    if rng.random() < 0.3:
        y = height * rng.uniform(0.15, 0.5)
        for rail in (-0.85 * z, 0.85 * z):
            pieces.append(("leg", rod((-0.85 * x, y, rail), (0.85 * x, y, rail), thick / 2)))
    return pieces


def slab(rng: Random, y: float, width: float, depth: float, thick: float, round_share: float) -> Triangles:
    """A horizontal top or seat: a box, or with probability `round_share` an ellipse."""
    if rng.random() < round_share:
        return disc(y, width / 2, thick, depth / width)
    return box(0, y, 0, width, thick, depth)


def backrest(rng: Random, y: float, z: float, width: float, height: float) -> list[Piece]:
    """A back that rises from (y, z): a panel, slats between rails, or a bent sheet; leaning backwards."""
    thick, lean, style = rng.uniform(0.03, 0.1), rng.uniform(-0.3, 0.05), rng.choice(3)
    if style == 0:
        surfaces = [box(0, y, z, width, height, thick)]
    elif style == 1:
        count = int(rng.integers(2, 6))
        places = np.linspace(-width / 2 + 0.04, width / 2 - 0.04, count)
        surfaces = [box(x, y, z, 0.06, height, thick) for x in places]
        surfaces.append(box(0, y + height * 0.8, z, width, height * 0.2, thick))
    else:
        u, v = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(0, 1, 5), indexing="ij")
        bend = rng.uniform(0.1, 0.3) * width
        surfaces = [sheet(np.stack([u * width / 2, y + v * height, z - bend * (1 - u**2) + bend], axis=-1))]
    return [("back", turn(surface, 0, lean, (0, y, z))) for surface in surfaces]


def armrests(rng: Random, y: float, width: float, depth: float, height: float, solid: bool) -> list[Piece]:
    """Two arms on height y: solid blocks outside the seat, or rails on a post."""
    thick = rng.uniform(0.15, 0.35) if solid else rng.uniform(0.05, 0.1)
    pieces: list[Piece] = []
    for side in (-1, 1):
        x = side * (width / 2 + (thick / 2 if solid else 0))
        if solid:
            pieces.append(("arm", box(x, y, 0, thick, height, depth)))
        else:
            pieces.append(("arm", box(x, y + height, 0, thick, 0.06, depth * 0.9)))
            pieces.append(("arm", rod((x, y, depth * 0.35), (x, y + height, depth * 0.35), 0.03)))
    return pieces


def fronts(
    rng: Random, part: str, x: float, y: float, z: float, width: float, height: float, columns: int, rows: int
) -> list[Piece]:
    """A grid of drawer fronts or doors on the plane z, each with its handle."""
    pieces: list[Piece] = []
    style, proud = rng.choice(3), rng.uniform(0.03, 0.08)
    cell_width, cell_height = width / columns, height / rows
    for column in range(columns):
        for row in range(rows):
            cx, cy = x - width / 2 + (column + 0.5) * cell_width, y + row * cell_height
            middle, bottom = cy + cell_height / 2, cy + 0.06 * cell_height
            front = box(cx, bottom, z + proud / 2, 0.9 * cell_width, 0.88 * cell_height, proud)
            pieces.append((part, front))
            if part == "door":
                cx += 0.35 * cell_width * (1 if column % 2 == 0 else -1)
            if style == 0:
                pieces.append(("handle", box(cx, middle - 0.02, z + proud + 0.03, 0.06, 0.06, 0.06)))
            elif style == 1:
                wide, tall = (0.04, 0.25) if part == "door" else (0.35 * cell_width, 0.04)
                pieces.append(("handle", box(cx, middle - tall / 2, z + proud + 0.03, wide, tall, 0.05)))
    return pieces


def feet(rng: Random, width: float, depth: float, height: float) -> list[Piece]:
    """Short support under a body: four feet, or a plinth."""
    if rng.random() < 0.5:
        return [("base", box(0, 0, 0, 0.92 * width, height, 0.92 * depth))]
    return stand(rng, width, depth, height, "rp")


def grip(x: float, y: float, reach: float, height: float, radius: float) -> Triangles:
    """A handle: a tube on a half ellipse that starts and ends at x."""
    angle, around = np.linspace(-np.pi / 2, np.pi / 2, 10)[:, None], np.linspace(0, 2 * np.pi, 9)
    out = 1 + radius / reach * np.cos(around)
    grid = [x + reach * out * np.cos(angle), y + height / 2 * out * np.sin(angle), radius * np.sin(around)]
    return sheet(np.stack(np.broadcast_arrays(*grid), axis=-1))


# ---- classes


def bed(rng: Random) -> list[Piece]:
    width, length = rng.uniform(1.0, 2.0), rng.uniform(1.8, 2.3)
    base, mattress = rng.uniform(0.1, 0.4), rng.uniform(0.12, 0.4)
    pieces = [("body", box(0, base, 0, width, mattress, length)), *feet(rng, width, length, base)]
    pieces += backrest(rng, 0, -length / 2, width, base + mattress + rng.uniform(0.05, 0.8))
    if rng.random() < 0.5:
        pieces.append(("base", box(0, 0, length / 2, width, base + mattress + rng.uniform(-0.1, 0.4), 0.07)))
    if rng.random() < 0.6:
        count = int(rng.integers(1, 3))
        for x in (np.arange(count) - (count - 1) / 2) * width / count:
            pillow = box(x, base + mattress, -length * 0.36, 0.8 * width / count, 0.12, 0.35, 0.8)
            pieces.append(("top", pillow))
    return pieces


def bench(rng: Random) -> list[Piece]:
    width, depth, height = rng.uniform(1.3, 2.6), rng.uniform(0.45, 0.85), rng.uniform(0.45, 0.8)
    seat = box(0, height, 0, width, rng.uniform(0.05, 0.15), depth)
    pieces = [("seat", seat), *stand(rng, width, depth, height, "rps")]
    if rng.random() < 0.45:
        pieces += backrest(rng, height, -depth / 2, width, rng.uniform(0.3, 0.8))
        if rng.random() < 0.5:
            pieces += armrests(rng, height, width, depth, rng.uniform(0.2, 0.4), False)
    return pieces


def bookshelf(rng: Random) -> list[Piece]:
    width, height, depth = rng.uniform(0.7, 1.5), rng.uniform(1.1, 2.2), rng.uniform(0.3, 0.55)
    thick, count = rng.uniform(0.03, 0.07), int(rng.integers(2, 7))
    pieces: list[Piece] = [("body", box(s * width / 2, 0, 0, thick, height, depth)) for s in (-1, 1)]
    for part, y in (("base", 0.05), ("top", height)):
        pieces.append((part, box(0, y, 0, width, thick, depth)))
    pieces += [("shelf", box(0, y, 0, width, thick, depth)) for y in np.linspace(0, height, count + 2)[1:-1]]
    if rng.random() < 0.6:
        pieces.append(("back", box(0, 0, -depth / 2, width, height, 0.02)))
    if rng.random() < 0.3:
        pieces += fronts(rng, "door", 0, 0.05, depth / 2, width, height * rng.uniform(0.25, 0.6), 2, 1)
    return pieces


def bottle(rng: Random) -> list[Piece]:
    radius, height = rng.uniform(0.2, 0.42), rng.uniform(0.8, 1.2)
    oval = rng.choice([1.0, rng.uniform(0.5, 1)])
    neck, shoulder = radius * rng.uniform(0.25, 0.6), rng.uniform(0.5, 0.8) * height
    radii, heights = curve([radius, radius * rng.uniform(0.85, 1), radius], shoulder)
    slope_radii, slope_heights = curve([radius, neck], height * rng.uniform(0.08, 0.25))
    pieces = [
        ("base", disc(0, radius, 0.01, oval)),
        ("body", revolve(radii, heights, oval)),
        ("body", revolve(slope_radii, slope_heights + shoulder, oval)),
        ("body", revolve([neck, neck], [slope_heights[-1] + shoulder, height * 1.1], oval)),
    ]
    if rng.random() < 0.5:
        pieces.append(("top", disc(height * 1.02, neck * 1.2, height * 0.12, oval)))
    if rng.random() < 0.15:
        pieces.append(("handle", grip(radius * 0.9, shoulder * 0.7, 0.15, shoulder * 0.5, 0.03)))
    return pieces


def chair(rng: Random) -> list[Piece]:
    width, depth, height = rng.uniform(0.75, 1.1), rng.uniform(0.75, 1.1), rng.uniform(0.6, 1.2)
    seat = slab(rng, height, width, depth, rng.uniform(0.05, 0.2), 0.25)
    pieces = [("seat", seat), *stand(rng, width, depth, height, "rrppcs")]
    pieces += backrest(rng, height, -depth * 0.45, width * rng.uniform(0.7, 1), rng.uniform(0.25, 1.2))
    if rng.random() < 0.35:
        pieces += armrests(rng, height, width, depth, rng.uniform(0.25, 0.45), bool(rng.random() < 0.3))
    return pieces


def cup(rng: Random) -> list[Piece]:
    radius, height = rng.uniform(0.3, 0.5), rng.uniform(0.5, 1.1)
    bottom = radius * rng.uniform(0.55, 1.05)
    radii, heights = curve([bottom, (bottom + radius) / 2 * rng.uniform(0.9, 1.2), radius], height)
    pieces = [
        ("base", disc(0, bottom, 0.02)),
        ("body", revolve(radii, heights)),
        ("body", revolve(radii * 0.9, heights)),
    ]
    if rng.random() < 0.85:
        reach, tall = rng.uniform(0.15, 0.35), height * rng.uniform(0.35, 0.75)
        pieces.append(("handle", grip(radii[8] * 0.95, height / 2, reach, tall, rng.uniform(0.025, 0.06))))
    if rng.random() < 0.15:
        pieces.append(("base", revolve([0, radius * 1.1, radius * 1.6], [-0.02, -0.02, 0.08])))
    return pieces


def desk(rng: Random) -> list[Piece]:
    width, depth, height = rng.uniform(1.2, 2.2), rng.uniform(0.65, 1.1), rng.uniform(0.7, 1.05)
    pieces = [("top", box(0, height, 0, width, rng.uniform(0.04, 0.1), depth))]
    left, right = rng.random(2) < 0.6
    for side, present in ((-1, left), (1, right)):
        if present:
            block, tall = rng.uniform(0.25, 0.4) * width, height * rng.uniform(0.4, 1)
            x = side * (width - block) / 2
            pieces.append(("body", box(x, height - tall, 0, block, tall, depth * 0.95)))
            rows = int(rng.integers(1, 4))
            pieces += fronts(rng, "drawer", x, height - tall, depth * 0.475, block, tall, 1, rows)
    if not (left and right):
        pieces += stand(rng, width, depth, height, "ps")
    if rng.random() < 0.5:
        pieces.append(("back", box(0, height * 0.35, -depth * 0.45, width, height * 0.65, 0.03)))
    if rng.random() < 0.25:
        pieces.append(("shelf", box(0, height + 0.4, -depth * 0.35, width, 0.05, depth * 0.3)))
        for x in (-0.48 * width, 0.48 * width):
            pieces.append(("body", box(x, height, -depth * 0.35, 0.05, 0.4, depth * 0.3)))
    return pieces


def dresser(rng: Random) -> list[Piece]:
    width, height, depth = rng.uniform(0.7, 1.6), rng.uniform(0.65, 1.3), rng.uniform(0.4, 0.65)
    lift, columns, rows = rng.uniform(0.03, 0.25), int(rng.integers(1, 4)), int(rng.integers(2, 6))
    pieces = [("body", box(0, lift, 0, width, height, depth)), *feet(rng, width, depth, lift)]
    pieces.append(("top", box(0, lift + height, 0, width * 1.05, 0.05, depth * 1.05)))
    pieces += fronts(rng, "drawer", 0, lift, depth / 2, width, height, columns, rows)
    if rng.random() < 0.2:
        pieces.append(("back", box(0, lift + height, -depth * 0.4, width * 0.7, rng.uniform(0.4, 0.8), 0.04)))
    return pieces


def lamp(rng: Random) -> list[Piece]:
    height, radius, pole = rng.uniform(0.7, 1.8), rng.uniform(0.2, 0.45), rng.uniform(0.02, 0.05)
    shade, tall = rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.5)
    pieces: list[Piece] = [("base", disc(0, radius, rng.uniform(0.03, 0.1)))]
    lean = rng.choice([0.0, rng.uniform(0.2, 0.9)])
    if rng.random() < 0.35:
        radii, heights = curve([radius * 0.6, radius * rng.uniform(0.5, 1.2), pole], height)
        pieces.append(("body", revolve(radii, heights)))
    else:
        pieces.append(("body", rod((0, 0, 0), (0, height, 0), pole)))
    top = revolve([shade, shade * rng.uniform(0.3, 1)], [height - tall / 3, height + tall * 2 / 3])
    if lean:
        elbow = (0.0, height, 0.0)
        tip = (lean * 0.8, height + rng.uniform(-0.2, 0.3), 0.0)
        pieces.append(("arm", rod(elbow, tip, pole)))
        top = turn(top, 2, rng.uniform(0, 0.8), elbow) + np.subtract(tip, elbow)
    return [*pieces, ("shade", top)]


def monitor(rng: Random) -> list[Piece]:
    width, height, lift = rng.uniform(1.0, 1.8), rng.uniform(0.6, 1.1), rng.uniform(0.1, 0.45)
    deep = rng.random() < 0.3
    thick, tilt = rng.uniform(0.05, 0.15), rng.uniform(-0.25, 0.1)
    screen = [box(0, lift, 0, width, height, thick)]
    if deep:
        bulge = box(0, 0, 0, 0.9 * width, rng.uniform(0.3, 0.8), 0.9 * height, rng.uniform(0.4, 0.8))
        screen.append(np.add(turn(bulge, 0, -np.pi / 2), (0, lift + height / 2, -thick / 2)))
    pieces: list[Piece] = [("body", turn(surface, 0, tilt, (0, lift, 0))) for surface in screen]
    foot = rng.uniform(0.2, 0.4) * width
    base = disc(0, foot, 0.05, 0.7) if rng.random() < 0.5 else box(0, 0, 0, 2 * foot, 0.05, foot)
    pieces.append(("base", base))
    pieces.append(("leg", box(0, 0, -thick / 2, rng.uniform(0.08, 0.4), lift + 0.4 * height, 0.06)))
    return pieces


def night_stand(rng: Random) -> list[Piece]:
    width, height, depth = rng.uniform(0.5, 0.85), rng.uniform(0.45, 0.9), rng.uniform(0.4, 0.65)
    lift = rng.uniform(0.05, 0.5)
    pieces = [("body", box(0, lift, 0, width, height, depth)), *feet(rng, width, depth, lift)]
    pieces.append(("top", box(0, lift + height, 0, width * 1.08, 0.05, depth * 1.08)))
    part, rows = ("door", 1) if rng.random() < 0.25 else ("drawer", int(rng.integers(1, 4)))
    pieces += fronts(rng, part, 0, lift, depth / 2, width, height, 1, rows)
    if lift > 0.25:
        pieces.append(("shelf", box(0, lift * 0.3, 0, width * 0.95, 0.04, depth * 0.95)))
    return pieces


def sofa(rng: Random) -> list[Piece]:
    width, depth, lift = rng.uniform(1.2, 2.4), rng.uniform(0.75, 1.15), rng.uniform(0.05, 0.3)
    seat, back = rng.uniform(0.25, 0.45), rng.uniform(0.3, 0.75)
    pieces = [("seat", box(0, lift, 0, width, seat, depth)), *feet(rng, width, depth, lift)]
    rise = box(0, lift, -depth / 2, width, seat + back, rng.uniform(0.15, 0.35))
    pieces.append(("back", turn(rise, 0, rng.uniform(-0.25, 0), (0, lift, -depth / 2))))
    if rng.random() < 0.85:
        pieces += armrests(rng, lift, width, depth, seat + rng.uniform(0.1, 0.4), bool(rng.random() < 0.85))
    count = int(rng.integers(0, 4))
    for x in (np.arange(count) - (count - 1) / 2) * width / max(count, 1):
        pieces.append(("seat", box(x, lift + seat, 0.05, 0.95 * width / count, 0.12, depth * 0.85, 0.92)))
    return pieces


def stool(rng: Random) -> list[Piece]:
    width, height = rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.7)
    depth = width * rng.uniform(0.8, 1.1)
    seat = slab(rng, height, width, depth, rng.uniform(0.05, 0.25), 0.55)
    pieces = [("seat", seat), *stand(rng, width, depth, height, "rrpc")]
    if rng.random() < 0.2:
        pieces += backrest(rng, height, -depth * 0.45, width * 0.8, rng.uniform(0.12, 0.35))
    if rng.random() < 0.3:
        ring, y = 0.4 * width, height * rng.uniform(0.2, 0.5)
        pieces.append(("leg", revolve([ring, ring * 1.1, ring], [y, y + 0.03, y + 0.06])))
    return pieces


def table(rng: Random) -> list[Piece]:
    width, depth, height = rng.uniform(0.9, 2.2), rng.uniform(0.7, 1.3), rng.uniform(0.45, 1.15)
    top = slab(rng, height, width, depth, rng.uniform(0.04, 0.12), 0.35)
    pieces = [("top", top), *stand(rng, width, depth, height, "rrppsc")]
    if rng.random() < 0.3:
        pieces.append(("base", box(0, height - 0.12, 0, width * 0.85, 0.12, depth * 0.8)))
    if rng.random() < 0.25:
        pieces.append(("shelf", box(0, height * rng.uniform(0.15, 0.5), 0, width * 0.8, 0.04, depth * 0.75)))
    if rng.random() < 0.15:
        columns = int(rng.integers(1, 3))
        pieces += fronts(rng, "drawer", 0, height - 0.2, depth / 2, width * 0.6, 0.2, columns, 1)
    return pieces


def vase(rng: Random) -> list[Piece]:
    height, foot = rng.uniform(0.7, 1.3), rng.uniform(0.15, 0.35)
    radii = [foot, rng.uniform(0.25, 0.5), rng.uniform(0.1, 0.4), rng.uniform(0.12, 0.45)]
    if rng.random() < 0.3:
        radii = [foot, foot * rng.uniform(1.1, 2)]
    outline, heights = curve(radii, height)
    pieces = [("base", disc(0, foot, 0.02)), ("body", revolve(outline, heights))]
    if rng.random() < 0.5:
        pieces.append(("body", revolve(outline * 0.92, heights)))
    if rng.random() < 0.2:
        for side in (0, np.pi):
            handle = grip(outline[9] * 0.95, height * 0.6, 0.15, height * 0.35, 0.03)
            pieces.append(("handle", turn(handle, 1, side)))
    return pieces


def wardrobe(rng: Random) -> list[Piece]:
    width, height, depth = rng.uniform(0.7, 1.6), rng.uniform(1.2, 2.2), rng.uniform(0.4, 0.75)
    lift, columns = rng.uniform(0.03, 0.2), int(rng.integers(1, 4))
    pieces = [("body", box(0, lift, 0, width, height, depth)), *feet(rng, width, depth, lift)]
    pieces.append(("top", box(0, lift + height, 0, width * 1.06, 0.06, depth * 1.06)))
    drawers = height * rng.uniform(0.12, 0.4) if rng.random() < 0.5 else 0.0
    if drawers:
        pieces += fronts(rng, "drawer", 0, lift, depth / 2, width, drawers, columns, 1)
    pieces += fronts(rng, "door", 0, lift + drawers, depth / 2, width, height - drawers, columns, 1)
    return pieces


CLASSES: dict[str, Callable[[Random], list[Piece]]] = {
    maker.__name__: maker
    for maker in (
        bed, bench, bookshelf, bottle, chair, cup, desk, dresser,
        lamp, monitor, night_stand, sofa, stool, table, vase, wardrobe,
    )
}  # fmt: skip


# ---- clouds and files


def sample_cloud(class_name: str, rng: Random) -> tuple[np.ndarray, np.ndarray]:
    """One cloud: points (2048, 3) float32, zero mean, in the unit sphere; and parts (2048,) uint8."""
    pieces = CLASSES[class_name](rng)
    kept = [p for p in pieces if p[0] not in OPTIONAL_PARTS or rng.random() >= DIFFICULTY["missing"]]
    triangles = np.concatenate([surface for _, surface in kept])
    part = np.repeat([PART_NAMES.index(name) for name, _ in kept], [len(surface) for _, surface in kept])
    triangles = triangles * np.exp(rng.uniform(-1, 1, 3) * DIFFICULTY["axis_scale"])

    hole = rng.uniform(0, DIFFICULTY["hole"])
    count = int(np.ceil(STORED_POINTS / (1 - hole)))
    edges = triangles[:, 1:] - triangles[:, :1]
    area = np.cumsum(np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1))
    chosen = np.searchsorted(area, rng.random(count) * area[-1], side="right")
    weight = rng.random((count, 2, 1))
    weight = np.where(weight.sum(1, keepdims=True) > 1, 1 - weight, weight)
    points = triangles[chosen, 0] + (weight * edges[chosen]).sum(1)

    # The points nearest to one of them are the ones not seen; what is left keeps its random order.
    distance = np.square(points - points[0]).sum(1)
    seen = np.sort(np.argsort(distance, kind="stable")[count - STORED_POINTS :])
    points, part = points[seen], part[chosen[seen]]

    turned = rotation(1, rng.uniform(-1, 1) * DIFFICULTY["yaw"])
    for axis in (0, 2):
        turned = rotation(axis, rng.normal() * DIFFICULTY["tilt"]) @ turned
    points = normalize(points @ turned.T)
    points = normalize(points + rng.normal(size=points.shape) * DIFFICULTY["jitter"])
    return points.astype(np.float32), part.astype(np.uint8)


def normalize(points: np.ndarray) -> np.ndarray:
    """Zero mean, and the farthest point at distance 1."""
    points = points - points.mean(0)
    unit: np.ndarray = points / np.sqrt(np.square(points).sum(1).max())
    return unit


def generate(split: str, seed: int = SEED, per_class: int | None = None) -> dict[str, np.ndarray]:
    """A split's arrays `data` (n, 2048, 3), `label` (n, 1) and `part` (n, 2048), classes taking turns."""
    count = (PER_CLASS[split] if per_class is None else per_class) * len(CLASSES)
    names = list(CLASSES)
    label = np.arange(count) % len(names)
    stream = list(PER_CLASS).index(split)
    clouds = [sample_cloud(names[label[i]], np.random.default_rng([seed, stream, i])) for i in range(count)]
    points, parts = zip(*clouds, strict=True)
    return {"data": np.stack(points), "label": label[:, None].astype(np.uint8), "part": np.stack(parts)}


def recipe() -> str:
    """What decides the contents of the files, as the one line of recipe.json beside them."""
    return json.dumps({"version": VERSION, "seed": SEED, "per_class": PER_CLASS, "difficulty": DIFFICULTY})


def write_shapes(folder: Path) -> None:
    """Write the data set as `folder`, complete or not at all, also when several processes do so at once.

    Raises:
        InputError: the data root cannot be written to.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as workspace:
            built = Path(workspace) / folder.name
            built.mkdir()
            write_files(built)
            try:
                built.rename(folder)
            except OSError:
                # Another process was first; its folder is complete, and the same.
                if not (folder / "recipe.json").is_file():
                    raise
    except OSError as error:
        raise InputError(
            f"Shapes cannot be written to {folder.parent} ({error}); choose another --data-root."
        ) from error


def write_files(folder: Path) -> None:
    for split in PER_CLASS:
        with h5py.File(folder / f"ply_data_{split}0.h5", "w") as file:
            for name, array in generate(split).items():
                file.create_dataset(name, data=array)
        (folder / f"{split}_files.txt").write_text(f"ply_data_{split}0.h5\n")
    (folder / "shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "part_names.txt").write_text("\n".join(PART_NAMES) + "\n")
    (folder / "recipe.json").write_text(recipe() + "\n")


class Shapes(HDF5Clouds):
    """1,600 training and 400 test clouds of 16 classes, written into the data root on first use.

    Takes the arguments of `HDF5Clouds`. The files also hold `part` uint8 (n, 2048), see `part_names.txt`.
    """

    folder = "shapes" + LAYOUT_SUFFIX

    @classmethod
    def locate(cls, root: str | Path) -> Path:
        """The folder at or under `root`, written now if there is none."""
        folder = cls.find(root)
        if folder is None:
            root = Path(root).expanduser()
            folder = root if root.name == cls.folder else root / cls.folder
            write_shapes(folder)
        written = folder / "recipe.json"
        if not written.is_file() or read_lines(written) != [recipe()]:
            raise InputError(
                f"{folder} was not written by this version of Shapes; delete it and it is generated anew."
            )
        return folder
