"""Pictures of a study: accuracy against the micro-batch, training curves, and accuracy against what it costs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from dgcnn_ws.engine.plots import save

# Okabe and Ito's colours, which differ for every kind of colour vision: a norm's colour, a head's line.
_COLOURS = {"bn": "#D55E00", "ws_bn": "#E69F00", "gn": "#009E73", "ws_gn": "#0072B2", "ws_bcn": "#CC79A7"}
_DASHES = {"bn": "--", "est": "-", "gn": "-.", "ln": ":", "none": (0, (1, 3))}
_MARKERS = {"bn": "s", "est": "o", "gn": "^", "ln": "D", "none": "v"}

Rows = list[dict[str, Any]]


def draw_accuracy(summaries: Rows, title: str, path: Path) -> None:
    """Draw test accuracy (best.pt) against the micro-batch with error bars, beside the curves over the epochs."""
    trained = [row for row in summaries if row["runs"]]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    if len({size for row in trained for size in row["micro_batches"]}) == 1:
        _bars(left, trained)
    else:
        _lines(left, trained)
    _curves(right, trained)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def draw_cost(summaries: Rows, title: str, path: Path) -> None:
    """Draw test accuracy (best.pt) against seconds per epoch and against the training's memory."""
    trained = [row for row in summaries if row["runs"]]
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    quantities = {"seconds_per_epoch": (1, "seconds per epoch"), "memory_bytes": (1e-6, "training memory (MB)")}
    for axes, (name, (unit, label)) in zip(panels, quantities.items(), strict=True):
        for row in trained:
            x, y = unit * row[name]["mean"], row["best_overall_accuracy"]
            deviation = 100 * (y["std"] or 0)
            axes.errorbar(x, 100 * y["mean"], deviation, capsize=3, **_style(row) | {"linestyle": "none"})
            axes.annotate(
                str(max(row["micro_batches"])), (x, 100 * y["mean"]), (4, 4), textcoords="offset points", fontsize=7
            )
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{label}; numbers: micro-batch trained")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy (%)")
    _legend(panels[1], trained)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def _style(row: dict[str, Any]) -> dict[str, Any]:
    head = row["head_norm"]
    return {"color": _COLOURS[row["norm"]], "linestyle": _DASHES[head], "marker": _MARKERS[head], "markersize": 5}


def _name(row: dict[str, Any]) -> str:
    return f"{row['norm']}, head {row['head_norm']}"


def _legend(axes: Axes, rows: Rows) -> None:
    """One entry a norm and head, in the order of the table."""
    first = {_name(row): row for row in reversed(rows)}
    for name in dict.fromkeys(map(_name, rows)):
        axes.plot([], [], label=name, **_style(first[name]))
    axes.legend(frameon=False, fontsize=8)


def _lines(axes: Axes, trained: Rows) -> None:
    """Test accuracy against the micro-batch, a line for each norm and head."""
    for name in dict.fromkeys(map(_name, trained)):
        rows = [row for row in trained if _name(row) == name]
        points = sorted((size, row["best_overall_accuracy"]) for row in rows for size in row["micro_batches"])
        sizes, scores = zip(*points, strict=True) if points else ((), ())
        means, deviations = ([100 * (score[key] or 0) for score in scores] for key in ("mean", "std"))
        style = _style(rows[0])
        if len(rows) == 1 and len(sizes) > 1:  # one result stands for all of them
            style["marker"] = ""
            axes.fill_between(
                sizes, np.subtract(means, deviations), np.add(means, deviations), color=style["color"], alpha=0.15, lw=0
            )
            axes.plot(sizes, means, **style)
        else:
            axes.errorbar(sizes, means, deviations, capsize=3, **style)
    ticks = sorted({size for row in trained for size in row["micro_batches"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("micro-batch (clouds in a forward pass)")
    axes.set_ylabel("test accuracy (%)")
    _legend(axes, trained)


def _bars(axes: Axes, trained: Rows) -> None:
    """Test accuracy at the one micro-batch there is, a bar for each norm and head."""
    scores = [row["best_overall_accuracy"] for row in trained]
    bars = axes.bar(
        [f"{row['norm']}\nhead {row['head_norm']}" for row in trained],
        [100 * score["mean"] for score in scores],
        yerr=[100 * (score["std"] or 0) for score in scores],
        color=[_COLOURS[row["norm"]] for row in trained],
        width=0.5,
    )
    axes.bar_label(bars, fmt="%.1f", padding=2)
    axes.set_ylim(0, 105)
    axes.set_ylabel(f"test accuracy (%) at micro-batch {trained[0]['micro_batches'][0]}")


def _curves(axes: Axes, trained: Rows) -> None:
    """Accuracy on the selection split over the epochs: the mean of the seeds, the smallest micro-batch thickest."""
    smallest = min(min(row["micro_batches"]) for row in trained)
    for row in trained:
        texts = [(Path(run) / "metrics.jsonl").read_text().splitlines() for run in row["runs"]]
        curves = np.array([[100 * json.loads(line)["overall_accuracy"] for line in text] for text in texts])
        epochs = np.arange(1, curves.shape[1] + 1)
        style = _style(row) | {"marker": "", "lw": 1.8 if min(row["micro_batches"]) == smallest else 0.7}
        axes.plot(epochs, curves.mean(0), **style)
        if len(trained) <= 4:
            axes.fill_between(epochs, curves.min(0), curves.max(0), color=style["color"], alpha=0.15, lw=0)
    on_test = any(row["selected_on"] == "test" for row in trained)
    axes.set_xlabel(f"epoch (bold: micro-batch {smallest})" if len(trained) > 4 else "epoch")
    axes.set_ylabel("test accuracy (%), CHOSEN ON" if on_test else "validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, trained)
