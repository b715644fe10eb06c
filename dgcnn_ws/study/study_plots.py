"""Pictures of a study: accuracy against the micro-batch, training curves, and accuracy against what it costs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from dgcnn_ws.pictures.plots import save

# Okabe and Ito's colours, which differ for every kind of colour vision: a norm's colour, a head's line.
_COLOURS = {"bn": "#D55E00", "ws_bn": "#E69F00", "gn": "#009E73", "ws_gn": "#0072B2", "ws_bcn": "#CC79A7"}
_DASHES = {"bn": "--", "bn_whole": (0, (6, 1)), "est": "-", "gn": "-.", "ln": ":", "none": (0, (1, 3))}
_MARKERS = {"bn": "s", "bn_whole": "P", "est": "o", "gn": "^", "ln": "D", "none": "v"}

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
    _finish(figure, _kind_handles(trained), title, path)


def draw_cost(summaries: Rows, title: str, path: Path) -> None:
    """Draw test accuracy (best.pt) against seconds per epoch and against the training's memory.

    A colour for each norm and head, whose points are joined in the order of micro-batches; a marker for each of these.
    """
    trained = [row for row in summaries if row["runs"]]
    sizes = _trained_sizes(trained)
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    quantities = {"seconds_per_epoch": (1, "seconds per epoch"), "memory_bytes": (1e-6, "training memory (MB)")}
    for axes, (name, (unit, label)) in zip(panels, quantities.items(), strict=True):
        for rows in _by_kind(trained).values():
            rows = sorted(rows, key=_trained_size)
            costs = [max(unit * row[name]["mean"], 1e-3) for row in rows]  # a tiny run takes no memory that is seen
            means, deviations = _in_percent([row["best_overall_accuracy"] for row in rows])
            style = _style(rows[0]) | {"marker": ""}
            axes.plot(costs, means, **style | {"lw": 0.8, "alpha": 0.5})
            axes.errorbar(costs, means, deviations, capsize=3, **style | {"linestyle": "none"})
            for row, cost, mean in zip(rows, costs, means, strict=True):
                axes.plot(cost, mean, color=style["color"], **_hollow(sizes.index(_trained_size(row))))
        _log_axis(axes)
        axes.set_xlabel(label)
    panels[0].set_ylabel("test accuracy (%)")
    markers = [
        Line2D([], [], color="grey", ls="", label=f"micro-batch {size}", **_hollow(i)) for i, size in enumerate(sizes)
    ]
    _finish(figure, [*_kind_handles(trained, marker=""), *markers], title, path)


def _style(row: dict[str, Any]) -> dict[str, Any]:
    head = row["head_norm"]
    return {"color": _COLOURS[row["norm"]], "linestyle": _DASHES[head], "marker": _MARKERS[head], "markersize": 5}


def _hollow(i: int) -> dict[str, Any]:
    """The i-th micro-batch's marker; those behind it show through."""
    return {"marker": "osD^v<>phX"[i % 10], "markersize": 7, "markerfacecolor": "none"}


def _trained_size(row: dict[str, Any]) -> int:
    """The micro-batch that a row's runs were trained at, of those that they stand for."""
    return max(row["micro_batches"])


def _trained_sizes(rows: Rows) -> list[int]:
    return sorted({_trained_size(row) for row in rows})


def _by_kind(rows: Rows) -> dict[str, Rows]:
    """The rows of each norm and head, in the order of the table."""
    kinds: dict[str, Rows] = {}
    for row in rows:
        kinds.setdefault(f"{row['norm']}, head {row['head_norm']}", []).append(row)
    return kinds


def _kind_handles(rows: Rows, **change: Any) -> list[Line2D]:
    return [Line2D([], [], label=kind, **_style(of_kind[0]) | change) for kind, of_kind in _by_kind(rows).items()]


def _in_percent(scores: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Means and standard deviations; a single run has none."""
    return [100 * score["mean"] for score in scores], [100 * (score["std"] or 0) for score in scores]


def _finish(figure: Figure, handles: list[Line2D], title: str, path: Path) -> None:
    """Beside the panels, where no data are, goes the legend."""
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=8, ncols=1 + len(handles) // 25)
    figure.suptitle(title, fontsize=11)
    save(figure, path)


def _log_axis(axes: Axes) -> None:
    """Make x logarithmic, with few enough round numbers for their labels to stand apart."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if high < 4 * low:
        ticks = np.array(MaxNLocator(6, steps=(1, 2, 5, 10)).tick_values(low, high))
    else:
        decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)))
        ticks = np.outer(decades, (1, 2, 5)).ravel() if high < 100 * low else decades
    ticks = ticks[(ticks >= low) & (ticks <= high)]
    axes.set_xticks(ticks[:: 1 + len(ticks) // 8])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())


def _lines(axes: Axes, trained: Rows) -> None:
    """Test accuracy against the micro-batch, a line for each norm and head."""
    kinds = _by_kind(trained)
    for i, rows in enumerate(kinds.values()):
        aside = 2 ** (min(0.1, 0.6 / len(kinds)) * (i - (len(kinds) - 1) / 2))  # the same results stand side by side
        style = _style(rows[0])
        points = sorted((size, row["best_overall_accuracy"]) for row in rows for size in row["micro_batches"])
        means, deviations = _in_percent([score for _, score in points])
        axes.errorbar(
            [size * aside for size, _ in points], means, deviations, capsize=2, lw=1, **style | {"marker": ""}
        )
        for row in rows:
            for size in row["micro_batches"]:
                fill = style["color"] if size == _trained_size(row) else "white"
                mean = 100 * row["best_overall_accuracy"]["mean"]
                axes.plot(size * aside, mean, markerfacecolor=fill, zorder=3, **style)
    ticks = sorted({size for row in trained for size in row["micro_batches"]})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    hollow = any(len(row["micro_batches"]) > 1 for row in trained)
    axes.set_xlabel(
        "micro-batch" + ("; hollow: same run as the filled one" if hollow else " (clouds in a forward pass)")
    )
    axes.set_ylabel("test accuracy (%)")


def _bars(axes: Axes, trained: Rows) -> None:
    """Test accuracy at the one micro-batch there is, a bar for each norm and head."""
    means, deviations = _in_percent([row["best_overall_accuracy"] for row in trained])
    colours = [_COLOURS[row["norm"]] for row in trained]
    bars = axes.barh(list(_by_kind(trained)), means, xerr=deviations, color=colours, height=0.5)
    axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=8)
    axes.tick_params("y", labelsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 115)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel(f"test accuracy (%) at micro-batch {trained[0]['micro_batches'][0]}")


def _curves(axes: Axes, trained: Rows) -> None:
    """Accuracy on the selection split over the epochs, mean of the seeds: thicker for larger micro-batches."""
    sizes = _trained_sizes(trained)
    widths = dict(zip(sizes, np.linspace(0.6, 2.0, len(sizes)), strict=True)) if len(sizes) > 1 else {}
    for row in trained:
        texts = [(Path(run) / "metrics.jsonl").read_text().splitlines() for run in row["runs"]]
        curves = np.array([[100 * json.loads(line)["overall_accuracy"] for line in text] for text in texts])
        epochs = np.arange(1, curves.shape[1] + 1)
        marker = "." if len(epochs) == 1 else ""  # a line needs two
        style = _style(row) | {"marker": marker, "lw": widths.get(_trained_size(row), 1.8)}
        axes.plot(epochs, curves.mean(0), **style)
        if len(trained) <= 4:
            axes.fill_between(epochs, curves.min(0), curves.max(0), color=style["color"], alpha=0.15, lw=0)
    on_test = any(row["selected_on"] == "test" for row in trained)
    axes.set_xlabel("epoch; thicker: larger micro-batch" if len(sizes) > 1 else "epoch")
    axes.set_ylabel("test accuracy (%), CHOSEN ON" if on_test else "validation accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
