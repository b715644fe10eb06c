"""A contact sheet: some clouds of every class side by side, lit and seen from one corner."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure

from dgcnn_ws import ops
from dgcnn_ws.pictures.plots import literal, save

COLUMNS = 8
TALLEST = 14  # rows; more classes are laid out in blocks side by side
CELL = 0.95  # inches
LABEL = 1.15  # cells left of each block, for the class's name
MAX_POINTS = 2048  # of a cloud that are drawn

AZIMUTH, ELEVATION = np.radians(35), np.radians(27)  # of the eye: about the up axis, above the ground
PICTURE_AXES = np.array(  # right, up, towards the eye
    [
        [np.cos(AZIMUTH), 0, -np.sin(AZIMUTH)],
        [-np.sin(ELEVATION) * np.sin(AZIMUTH), np.cos(ELEVATION), -np.sin(ELEVATION) * np.cos(AZIMUTH)],
        [np.cos(ELEVATION) * np.sin(AZIMUTH), np.sin(ELEVATION), np.cos(ELEVATION) * np.cos(AZIMUTH)],
    ]
)
LIGHT = np.array([0.22, 0.85, 0.48])  # its direction: the three faces of a box that can be seen differ
LIT = colormaps["YlGnBu_r"].resampled(1024)
BRIGHTEST = 0.72  # of that map; beyond, it vanishes on white
PALE = (0.92, 0.94, 0.96)  # what lies behind a nearer surface
NEIGHBOURS = 16  # that a point's normal is estimated from
GRID = 32  # cells across the picture of a cloud, in which the nearest surface hides the others
THICKNESS = 0.3  # of what counts as one surface, along the line of sight, in radii of the cloud


def draw_contact_sheet(points: np.ndarray, labels: np.ndarray, class_names: list[str], title: str, path: Path) -> None:
    """Draw up to eight clouds of each class, evenly spaced over the class's clouds in stored order.

    Args:
        points: (n, num_points, 3), y up.
        labels: (n,) indices into `class_names`.
        title: the line above.
        path: the picture; its ending decides the format.
    """
    blocks = -(-len(class_names) // TALLEST)
    rows = -(-len(class_names) // blocks)
    width = blocks * (COLUMNS + LABEL)
    figure = Figure(figsize=(width * CELL + 0.2, rows * CELL + 0.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(0, width)
    axes.set_ylim(rows, 0)
    for label, name in enumerate(class_names):
        block, row = divmod(label, rows)
        left = block * (COLUMNS + LABEL) + LABEL
        axes.text(left - 0.15, row + 0.5, literal(name.replace("_", "\n")), ha="right", va="center", fontsize=10)
        for column, index in enumerate(evenly_spaced(np.flatnonzero(labels == label))):
            places, colours = project(points[index, :MAX_POINTS])
            places = places * (0.46, -0.46) + (left + column + 0.5, row + 0.5)
            axes.scatter(places[:, 0], places[:, 1], s=1.6, c=colours, linewidths=0, rasterized=True)
    figure.suptitle(literal(title), fontsize=12)
    save(figure, path)


def draw_pairs(pairs: list[tuple[np.ndarray, np.ndarray, str]], path: Path) -> None:
    """Draw up to 24 pairs of clouds side by side, three pairs in a row, each with a line of words below.

    Args:
        pairs: two clouds (num_points, 3), y up, and what to say of them; more than 24 are left out.
        path: the picture; its ending decides the format.
    """
    pairs = pairs[: 3 * 8]
    rows = max(1, -(-len(pairs) // 3))
    figure = Figure(figsize=(3 * 4.4, rows * 2.3 + 0.3), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(0, 3 * 2.2)
    axes.set_ylim(rows * 1.15, 0)
    for place, (*clouds, words) in enumerate(pairs):
        row, column = divmod(place, 3)
        for side, cloud in enumerate(clouds):
            places, colours = project(cloud[:MAX_POINTS])
            places = places * (0.46, -0.46) + (2.2 * column + 0.6 + side, 1.15 * row + 0.5)
            axes.scatter(places[:, 0], places[:, 1], s=2, c=colours, linewidths=0, rasterized=True)
        axes.text(2.2 * column + 1.1, 1.15 * row + 1.02, literal(words), ha="center", va="center", fontsize=6)
    save(figure, path)


def samples_figure(stored: np.ndarray, seen: np.ndarray, names: list[str]) -> Figure:
    """Return clouds as stored (upper of two rows) and as a network sees them (lower), in the same scale.

    Args:
        stored, seen: (n, num_points, 3), y up.
        names: the class of each.
    """
    figure = Figure(figsize=((len(names) + 0.5) * 2 * CELL, 4 * CELL + 0.4), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-0.5, len(names))
    axes.set_ylim(2, -0.2)
    extent = max(float(np.abs(clouds @ PICTURE_AXES[:2].T).max()) for clouds in (stored, seen)) or 1.0
    for row, (text, clouds) in enumerate((("as stored", stored), ("augmented", seen))):
        axes.text(-0.1, row + 0.5, text, ha="right", va="center", fontsize=10)
        for column, cloud in enumerate(clouds[:, :MAX_POINTS]):
            places, colours = project(cloud)
            centre, radius = frame(cloud)
            # Back from the unit circle, so that stretching and shifting show.
            places = (places * radius + (PICTURE_AXES @ centre)[:2]) / extent
            places = places * (0.48, -0.48) + (column + 0.5, row + 0.5)
            axes.scatter(places[:, 0], places[:, 1], s=3, c=colours, linewidths=0)
    for column, name in enumerate(names):
        axes.text(column + 0.5, -0.05, literal(name), ha="center", va="bottom", fontsize=10)
    return figure


def evenly_spaced(members: np.ndarray) -> np.ndarray:
    """Up to `COLUMNS` of (n,) members, the first and the last among them."""
    if len(members) <= COLUMNS:
        return members
    return members[np.linspace(0, len(members) - 1, COLUMNS).round().astype(int)]


def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the points of a cloud (n, 3) lie in the unit circle (n, 2), and their colours (n, 3), in drawing order.

    The cloud fills the circle whatever its size. A colour is the light that the surface gets.
    """
    centre, radius = frame(points)
    points = (points - centre) / radius
    points = points[np.argsort(points @ PICTURE_AXES[2], kind="stable")]  # the farthest is drawn first
    eye = points @ PICTURE_AXES.T
    colours = LIT(np.abs(normals(points) @ LIGHT).clip(0, 1) * BRIGHTEST)[:, :3]
    hidden = nearest_depth(eye) > eye[:, 2] + THICKNESS
    colours[hidden] = PALE
    order = np.argsort(~hidden, kind="stable")
    return eye[order, :2], colours[order]


def frame(points: np.ndarray) -> tuple[np.ndarray, float]:
    """The middle (3,) of a cloud (n, 3) and the distance of its farthest point; 1 where all points are one."""
    points = points.astype(np.float64)
    centre = (points.min(0) + points.max(0)) / 2
    return centre, float(np.linalg.norm(points - centre, axis=1).max()) or 1.0


def normals(points: np.ndarray) -> np.ndarray:
    """The unit normal (n, 3) at each point, of either sign: the direction in which its neighbours vary least."""
    cloud = torch.from_numpy(points.astype(np.float32))
    around = cloud[ops.knn(cloud[None], min(NEIGHBOURS, len(cloud)))[0]].double()  # (n, k, 3)
    around = around - around.mean(1, keepdim=True)
    return np.linalg.eigh((around.mT @ around).numpy())[1][:, :, 0]


def nearest_depth(eye: np.ndarray) -> np.ndarray:
    """How near to the eye anything comes in the cells around each point, given (n, 3) in the picture's axes."""
    column, row = np.clip(((eye[:, :2] + 1) / 2 * GRID).astype(int), 0, GRID - 1).T
    depth = np.full((GRID + 2, GRID + 2), -np.inf)
    np.maximum.at(depth, (column + 1, row + 1), eye[:, 2])
    return np.lib.stride_tricks.sliding_window_view(depth, (3, 3)).max((2, 3))[column, row]
