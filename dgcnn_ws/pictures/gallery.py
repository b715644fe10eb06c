"""Clouds beside each other, each with two lines about it: what a network got wrong."""

import math
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dgcnn_ws.pictures.contact_sheet import MAX_POINTS, project
from dgcnn_ws.pictures.plots import literal, save, shortened

COLUMNS = 6
MOST = 30
CELL = 1.9  # inches
CHARACTERS = 24  # of a line that fits over a cell


def draw_gallery(points: np.ndarray, titles: list[str], title: str, path: Path) -> None:
    """Draw clouds in rows of six.

    Args:
        points: (n, num_points, 3), y up; with none of them the picture says that there is nothing to show.
        titles: a few short lines about each.
        title: the line above.
        path: the picture; its ending decides the format.
    """
    columns = min(COLUMNS, max(len(titles), 3))
    rows = max(1, math.ceil(len(titles) / columns))
    figure = Figure(figsize=(columns * CELL, rows * CELL * 1.25 + 0.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(0, columns)
    axes.set_ylim(rows * 1.25, 0)
    for i, (cloud, lines) in enumerate(zip(points, titles, strict=True)):
        row, column = divmod(i, columns)
        places, colours = project(cloud[:MAX_POINTS])
        places = places * (0.47, -0.47) + (column + 0.5, row * 1.25 + 0.77)
        axes.scatter(places[:, 0], places[:, 1], s=3, c=colours, linewidths=0, rasterized=True)
        text = "\n".join(shortened(line, CHARACTERS) for line in lines.split("\n"))
        axes.text(column + 0.5, row * 1.25 + 0.02, literal(text), ha="center", va="top", fontsize=8)
    figure.suptitle(literal(title), fontsize=11)
    save(figure, path)
