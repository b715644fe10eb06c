"""Pictures of a run, drawn without a display."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from dgcnn_ws.files import replacing

MAX_LINE = 36  # characters over one cloud of several
MAX_NAME = 32  # characters of a class's name that are drawn
PICTURES = (".png", ".pdf", ".svg")


def save(figure: Figure, path: Path) -> None:
    """Write `figure` to `path` in one step; the ending decides the format."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())


def literal(text: str) -> str:
    """Return `text` so that matplotlib shows it as it stands, not as a formula."""
    return text.replace("$", r"\$")


def shortened(text: str, most: int) -> str:
    """Return `text` in at most `most` characters: its middle gives way, since names differ at either end."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def draw_confusion(confusion: list[list[int]], class_names: list[str], path: Path, unit: str = "clouds") -> None:
    """Draw `confusion_figure` into a picture."""
    save(confusion_figure(confusion, class_names, unit), path)


def confusion_figure(
    confusion: list[list[int]], class_names: list[str], unit: str = "clouds", numbers: bool = True
) -> Figure:
    """Return a confusion matrix, each row as fractions of its class; `numbers` writes the counts into it."""
    counts = np.array(confusion)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    names = [shortened(name, MAX_NAME) for name in class_names]
    side = max(3.0, 0.32 * len(names))  # inches
    beside = 0.7 + 0.085 * max(len(name) for name in names)
    # Which leaves room beside a square of its own.
    figure = Figure(figsize=(side + beside + 0.9, side + beside), layout="compressed")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, label="share of the class", fraction=0.046, shrink=min(1, 5 / side))
    bar.ax.set_box_aspect(min(side, 5) / 0.2)
    names = [literal(name) for name in names]
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    for i, j in zip(*np.nonzero(counts), strict=True) if numbers else ():
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, str(counts[i, j]), ha="center", va="center", fontsize=6, color=colour)
    accuracy = np.trace(counts) / counts.sum()
    axes.set_title(f"overall accuracy {accuracy:.2%} of {counts.sum():,} {unit}", fontsize=10)
    return figure


def draw_reliability(bins: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Draw how often answers are right over how sure the network was of them; on the diagonal both are the same.

    Args:
        bins: of each line's name its `count`, `confidence` and `accuracy` a bin (`engine/scoring/calibration.py`).
    """
    figure = Figure(figsize=(4.8, 5.8), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    above.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for i, (name, line) in enumerate(bins.items()):
        count = np.array(line["count"])
        total, filled = count.sum(), count > 0
        confidence, accuracy = (np.array(line[key])[filled] for key in ("confidence", "accuracy"))
        error = (count[filled] * np.abs(accuracy - confidence)).sum() / total
        above.plot(confidence, accuracy, marker="o", markersize=4, label=f"{name}: ECE {error:.3f}")
        edges = np.linspace(0, 1, len(count) + 1)
        below.stairs(count / total, edges, fill=not i, alpha=1 if i else 0.4)
    above.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    below.set(xlabel="probability of the answer", ylabel="share of clouds")
    above.legend(frameon=False, fontsize=9, loc="lower right")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    save(figure, path)


def draw_training(lines: list[dict[str, Any]], path: Path) -> None:
    """Draw loss and accuracy over the epochs: the lines of a run's `metrics.jsonl`."""
    epochs = [line["epoch"] for line in lines]
    split = {"val": "validation", "test": "test"}[lines[0]["selected_on"]]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [line["train_loss"] for line in lines], label="train (smoothed labels)", marker=".")
    left.plot(epochs, [line["loss"] for line in lines], label=split, marker=".")
    left.set_ylabel("cross entropy")
    right.plot(epochs, [100 * line["train_accuracy"] for line in lines], label="train", marker=".")
    right.plot(epochs, [100 * line["overall_accuracy"] for line in lines], label=split, marker=".")
    right.set_ylabel("overall accuracy (%)")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    save(figure, path)


def draw_benchmark(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Draw time and memory per cloud against the batch size, and against the points where there are several.

    Args:
        rows: of `benchmark.measure`. EdgeConvs alone are drawn where there is nothing else.
    """
    measured = [row for row in rows if not row["refusal"]]
    measured = [row for row in measured if row["mode"] in ("train", "inference")] or measured
    points, sizes = (sorted({row[axis] for row in measured}) for axis in ("num_points", "batch_size"))
    several = len(points) > 1
    figure = Figure(figsize=(8.5, 3.4 * (1 + several) + 1.2), layout="constrained")
    panels = figure.subplots(1 + several, 2, squeeze=False)
    if measured:
        shown = [row for row in measured if row["num_points"] == points[0]]
        _draw_costs(panels[0], shown, "batch_size", f"clouds in a step, of {points[0]:,} points each")
        lines, names = panels[0, 0].get_legend_handles_labels()
        modes = len({row["mode"] for row in shown})  # a column of the legend each
        figure.legend(lines, names, loc="outside lower center", ncols=modes, frameon=False, fontsize=8)
    if several:
        shown = [row for row in measured if row["batch_size"] == sizes[0]]
        _draw_costs(panels[1], shown, "num_points", f"points of a cloud, at batch size {sizes[0]}")
    figure.suptitle(title, fontsize=10)
    save(figure, path)


def draw_wins(clouds: list[tuple[np.ndarray, np.ndarray, str]], path: Path) -> None:
    """Draw clouds, every point coloured by how many channels of the pooled maximum it decides.

    Args:
        clouds: of each its points (N, 3), y up, their wins (N,) and a title.
    """
    columns = min(math.ceil(math.sqrt(len(clouds))), 4)
    rows = math.ceil(len(clouds) / columns)
    figure = Figure(figsize=(3.5 * columns + 1.2, 3.5 * rows), layout="constrained")
    most = max(2, *(int(wins.max()) for _, wins, _ in clouds))
    colours = ListedColormap(colormaps["plasma_r"](np.linspace(0.15, 1, 256)))  # without its palest yellow
    panels: list[Any] = [figure.add_subplot(rows, columns, i + 1, projection="3d") for i in range(len(clouds))]
    for axes, (points, wins, title) in zip(panels, clouds, strict=True):
        x, y, z = points[:, 0], -points[:, 2], points[:, 1]  # matplotlib's up is its third axis
        rest, won = wins == 0, wins > 0
        axes.scatter(x[rest], y[rest], z[rest], s=4, color="0.8", linewidths=0, depthshade=False)
        style = {"cmap": colours, "norm": LogNorm(1, most), "linewidths": 0, "depthshade": False}
        image = axes.scatter(x[won], y[won], z[won], s=12 + 8 * np.log2(wins[won]), c=wins[won], **style)
        lines = [shortened(line, MAX_LINE) for line in title.split("\n")]
        axes.set_title(literal("\n".join(lines)), fontsize=10, y=0.97)
        axes.set_axis_off()
        limits = np.linalg.norm(points, axis=1).max() * np.array([-0.75, 0.75])
        axes.set(xlim=limits, ylim=limits, zlim=limits)
        axes.set_box_aspect((1, 1, 1), zoom=1.05)  # a sphere just fits
        axes.view_init(elev=20, azim=-60)
    ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= most]
    bar = figure.colorbar(image, ax=panels, label="channels decided by the point", shrink=0.7)
    bar.set_ticks(ticks, labels=[str(tick) for tick in ticks])
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    save(figure, path)


# Okabe and Ito's colours, which differ for every kind of colour vision.
_COLOURS = {"reference": "#D55E00", "fused": "#0072B2", "torch_geometric": "#009E73"}
_DASHES = {"train": "-", "inference": "--", "layers": "-", "ragged": "-.", "ragged_deep": ":"}
_MARKERS = "os^Dv"


def _draw_costs(panels: Any, rows: list[dict[str, Any]], axis: str, label: str) -> None:
    """Draw time, with its floor, and memory over one axis into two panels."""
    rows = sorted(rows, key=lambda row: row[axis])
    rows = [row | {"norm": row["norm"] + (" bf16" if row.get("precision") == "bf16" else "")} for row in rows]
    norms = list(dict.fromkeys(row["norm"] for row in rows))
    for mode in dict.fromkeys(row["mode"] for row in rows):
        lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            if row["mode"] == mode:
                lines.setdefault((row["norm"], row["implementation"]), []).append(row)
        for (norm, implementation), line in lines.items():
            style = {
                "linestyle": _DASHES[mode],
                "color": _COLOURS[implementation],
                "marker": _MARKERS[norms.index(norm) % len(_MARKERS)],
                "markerfacecolor": "white" if norms.index(norm) else None,
                "label": f"{mode}, {implementation}, {norm}",
            }
            places = [row[axis] for row in line]
            panels[0].plot(places, [row["milliseconds_per_cloud"]["median"] for row in line], **style)
            panels[1].plot(places, [row["memory_bytes_per_cloud"] / 1e6 for row in line], **style)
        floors = {r[axis]: r["floor_milliseconds_per_cloud"]["median"] for r in rows if r["mode"] == mode}
        style = {"linestyle": _DASHES[mode], "color": "0.55", "label": f"{mode}, floor"}
        panels[0].plot(*zip(*floors.items(), strict=True), **style)
    ticks = sorted({row[axis] for row in rows})
    quantities = ("time (ms per cloud)", "memory above idle (MB per cloud)")
    for axes, quantity in zip(panels, quantities, strict=True):
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.set_ylabel(quantity)
        axes.grid(alpha=0.3)
