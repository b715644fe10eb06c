"""A study's tables: Markdown to read, CSV to compute with, and one HTML page that needs no other file."""

import base64
import csv
import html
import re
from pathlib import Path
from typing import Any

from dgcnn_ws.files import replacing
from dgcnn_ws.text_table import markdown

HEADINGS = (
    "norm",
    "head",
    "micro-batch",
    "OA, chosen {}",
    "mAcc, chosen {}",
    "OA, last",
    "mAcc, last",
    "runs",
    "s per epoch",
    "MB above idle",
)
AGAINST = "OA against `bn` at the whole batch, 95 % interval"
INTERVALS = "over seeds by Student's t on runs of one seed, over clouds (single runs) by a bootstrap over the test set"
COLUMNS = (
    "best_overall_accuracy",
    "best_mean_class_accuracy",
    "last_overall_accuracy",
    "last_mean_class_accuracy",
)


def _span(sizes: list[int]) -> str:
    return str(sizes[0]) if len(sizes) == 1 else f"any of {min(sizes)} to {max(sizes)} (trained at {max(sizes)})"


def _percent(score: dict[str, Any]) -> str:
    spread = "" if score["std"] is None else f" ± {100 * score['std']:.1f}"
    return f"{100 * score['mean']:.1f}{spread}"


def _difference(row: dict[str, Any]) -> str:
    if "difference" not in row:
        return ""
    mean, low, high = (100 * row["difference"][name] for name in ("mean", "low", "high"))
    return f"{mean:+.1f} ({low:+.1f} to {high:+.1f}; {row['difference']['over']})"


def table(summaries: list[dict[str, Any]]) -> list[list[str]]:
    """Return the table's cells, headings first; accuracies in % on the test set, mean ± std over seeds.

    A row of batch norm is followed by one that scores the same checkpoints by the batch's own statistics. Other
    measures have a column each; where runs are compared with those of batch norm, a last column says by how much.
    """
    chosen = "ON THE TEST SET" if any(row["selected_on"] == "test" for row in summaries) else "on validation"
    measures = measures_of(summaries)
    blank = [""] * len(measures)
    rows = [[*(heading.format(chosen) for heading in HEADINGS), *measures.values(), AGAINST]]
    for row in summaries:
        start = [row["norm"], row["head_norm"], _span(row["micro_batches"])]
        reason = row["refusal"] or next(filter(None, row["failures"].values()), None)
        if not row["runs"]:
            reason = f"{'cannot train' if row['refusal'] else 'failed'}: {reason}" if reason else "not finished"
            rows.append([*start, reason, *[""] * 6, *blank, ""])
            continue
        failed = sum(reason is not None for reason in row["failures"].values())
        others = {"failed": failed, "to go": len(row["failures"]) - failed}
        count = f"{len(row['runs'])}" + "".join(f" ({number} {word})" for word, number in others.items() if number)
        cost = [f"{row['seconds_per_epoch']['mean']:.0f}", f"{row['memory_bytes']['mean'] / 1e6:.0f}"]
        found = [row["measures"][name]["accuracy"] for name in measures]
        by = [_percent(accuracy) if accuracy else "" for accuracy in found]
        rows.append([*start, *(_percent(row[name]) for name in COLUMNS), count, *cost, *by, _difference(row)])
        names = [name.replace("_", "_by_batch_statistics_", 1) for name in COLUMNS]
        if names[0] in row:
            label = f"{start[2]}, scored by its own batch statistics"
            rows.append([*start[:2], label, *(_percent(row[name]) for name in names), count, "", "", *blank, ""])
    return rows if any(row[-1] for row in rows[1:]) else [row[:-1] for row in rows]


def measures_of(summaries: list[dict[str, Any]]) -> dict[str, str]:
    """Return name and heading of the measures beside accuracy by the labels: those of the first row that has runs."""
    measures: dict[str, Any] = next((row.get("measures", {}) for row in summaries if row["runs"]), {})
    return {name: measure["heading"] for name, measure in measures.items()}


def markdown_table(summaries: list[dict[str, Any]]) -> str:
    """Return the table in Markdown."""
    head, *rows = table(summaries)
    return "\n".join(markdown([head, *([f"`{norm}`", *rest] for norm, *rest in rows)]))


def write_csv(summaries: list[dict[str, Any]], cells: Path, runs: Path) -> None:
    """Write a line for each cell with mean and standard deviation, and one for each finished run.

    Fractions, seconds and bytes, nothing rounded; a cell without runs has empty figures.
    """
    names = [*COLUMNS, *(name.replace("_", "_by_batch_statistics_", 1) for name in COLUMNS)]
    names += ["seconds_per_epoch", "memory_bytes"]
    measures = measures_of(summaries)
    columns = [*names, *(f"{name}_overall_accuracy" for name in measures)]
    spread_names = [f"{name}_{part}" for name in columns for part in ("mean", "std")]
    of_cells: list[list[Any]] = [["norm", "head_norm", "micro_batches", "num_runs", *spread_names]]
    of_runs: list[list[Any]] = [["norm", "head_norm", "micro_batches", "run", *columns]]
    for row in summaries:
        start = [row["norm"], row["head_norm"], " ".join(map(str, row["micro_batches"]))]
        spreads = [row.get(name, {}) for name in names]
        spreads += [row.get("measures", {}).get(name, {}).get("accuracy") or {} for name in measures]
        of_cells.append([*start, len(row["runs"]), *(spread.get(s) for spread in spreads for s in ("mean", "std"))])
        for i, run in enumerate(row["runs"]):
            of_runs.append([*start, run, *(spread["values"][i] if spread else None for spread in spreads)])
    for path, lines in ((cells, of_cells), (runs, of_runs)):
        with replacing(path) as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows(lines)


def search_table(record: list[dict[str, Any]]) -> str:
    """Return a search's trials in Markdown: validation accuracy in % after the last epoch, the chosen one bold."""
    rows = [["norm", "head", "optimizer", "learning rate", "validation OA"]]
    for entry in record:
        if "failure" in entry:
            score = f"failed: {entry['failure']}"
        else:
            score = f"{100 * entry['validation_accuracy']:.1f}"
            score = f"**{score}**" if entry.get("chosen") else score
        rows.append([f"`{entry['norm']}`", entry["head_norm"], entry["optimizer"], f"{entry['lr']:g}", score])
    return "\n".join(markdown(rows))


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 14px } th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem;
text-align: left } th { border-bottom: 2px solid #888 } img { max-width: 100% } pre { overflow-x: auto;
background: #f6f6f6; padding: .8rem } code { font-family: ui-monospace, monospace; font-size: 14px }
"""


def _as_html(cell: str) -> str:
    """Return a cell of the table as HTML: words in backticks are code, and a figure keeps to one line."""
    return re.sub(r"`(\w+)`", r"<code>\1</code>", html.escape(cell)).replace(" ± ", "&nbsp;±&nbsp;")


def _html_cells(row: list[str]) -> str:
    """Return a row's cells; what stands last before empty ones, such as why a network cannot train, has their room."""
    filled = max((i for i, cell in enumerate(row) if cell), default=0)
    return "".join(
        f"<td colspan={len(row) - i}>{cell}</td>" if i == filled < len(row) - 1 else f"<td>{cell}</td>"
        for i, cell in enumerate(row[: filled + 1])
    )


def write_html(study: dict[str, Any], pictures: list[Path], path: Path) -> None:
    """Write a study as one page: its table, pictures, search, settings, machine and command.

    Args:
        study: what `study.json` holds.
        pictures: PNG files to put into the page.
    """
    head, *rows = [[_as_html(cell) for cell in row] for row in table(study["cells"])]
    images = [base64.b64encode(picture.read_bytes()).decode() for picture in pictures]
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(study['title'])}</title>",
        f"<style>{_STYLE}</style><h1>{html.escape(study['title'])}</h1>",
        f"<pre>{html.escape(study['command'])}</pre>",
        "<p>Accuracies in % on the test set, mean ± standard deviation over seeds.",
        f"Differences, where there are any, are in points: {INTERVALS}.</p><table>",
        "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>",
        *(f"<tr>{_html_cells(row)}</tr>" for row in rows),
        "</table>",
        *(f'<p><img alt="" src="data:image/png;base64,{image}"></p>' for image in images),
    ]
    if study["search"]:
        parts.append(f"<h2>Search</h2><pre>{html.escape(search_table(study['search']))}</pre>")
    for name in ("settings", "environment"):
        lines = "\n".join(f"{key}: {value}" for key, value in study[name].items())
        parts.append(f"<h2>{name.capitalize()}</h2><pre>{html.escape(lines)}</pre>")
    with replacing(path) as temporary:
        temporary.write_text("\n".join(parts) + "\n")
