"""A study's tables say what its numbers are, and its page needs no other file."""

import csv
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from dgcnn_ws.study.report import _html_cells, markdown_table, search_table, write_csv, write_html
from dgcnn_ws.study.study_plots import draw_accuracy, draw_cost


def spread(*values: float) -> dict[str, Any]:
    mean = sum(values) / len(values)
    return {"mean": mean, "std": abs(values[0] - values[-1]) / 2**0.5 if len(values) > 1 else None, "values": values}


def row(tmp_path: Path, norm: str, sizes: list[int], **change: Any) -> dict[str, Any]:
    run = tmp_path / f"{norm}{sizes[0]}"
    run.mkdir(exist_ok=True)
    (run / "metrics.jsonl").write_text('{"overall_accuracy": 0.5}\n{"overall_accuracy": 0.6}\n')
    kind: dict[str, Any] = {"norm": norm, "head_norm": "bn" if norm == "bn" else "est", "micro_batches": sizes}
    kind |= {"refusal": None, "failures": {}, "selected_on": "val", "runs": [str(run), str(run)]}
    scores = {
        f"{which}_{score}": spread(0.8, 0.9)
        for which in ("best", "last")
        for score in ("overall_accuracy", "mean_class_accuracy")
    }
    return kind | scores | {"seconds_per_epoch": spread(10, 12), "memory_bytes": spread(1e6, 3e6)} | change


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    refused = {"refusal": "a BatchNorm head <cannot>", "runs": [], "selected_on": None}
    own = {
        f"{w}_by_batch_statistics_{s}_accuracy": spread(0.3, 0.3)
        for w in ("best", "last")
        for s in ("overall", "mean_class")
    }
    return [
        row(tmp_path, "bn", [1], **refused),
        row(tmp_path, "bn", [2], **own),
        row(tmp_path, "bn", [32]),
        row(tmp_path, "gn", [32], runs=[], failures={"x": "loss became nan"}),
        row(tmp_path, "ws_gn", [1, 2, 32], failures={"y": "killed"}),
    ]


def test_the_table(rows: list[dict[str, Any]]) -> None:
    lines = markdown_table(rows).splitlines()
    assert "OA, chosen on validation" in lines[0]
    assert lines[2].startswith("| `bn` | bn | 1 | cannot train: a BatchNorm head <cannot> |")
    assert lines[3] == "| `bn` | bn | 2 |" + " 85.0 ± 7.1 |" * 4 + " 2 | 11 | 2 |"
    assert lines[4].startswith("| `bn` | bn | 2, scored by its own batch statistics | 30.0 ± 0.0 | 30.0 ± 0.0 |")
    assert "failed: loss became nan" in lines[6]
    assert (
        lines[7].startswith("| `ws_gn` | est | any of 1 to 32 (trained at 32) | 85.0 ± 7.1 |")
        and "2 (1 failed)" in lines[7]
    )
    assert len({line.count("|") for line in lines}) == 1
    on_test = markdown_table([rows[1] | {"selected_on": "test"}])
    assert "chosen ON THE TEST SET" in on_test


def test_differences_are_a_last_column_where_there_are_any(rows: list[dict[str, Any]]) -> None:
    plain = markdown_table(rows).splitlines()
    rows[4]["difference"] = {"mean": 0.005, "low": -0.011, "high": 0.021, "over": "seeds"}
    lines = markdown_table(rows).splitlines()
    assert lines[7] == plain[7] + " +0.5 (-1.1 to +2.1; seeds) |"
    assert lines[0].startswith(plain[0]) and "95 % interval" in lines[0]
    assert lines[3] == plain[3] + "  |" and len({line.count("|") for line in lines}) == 1


def test_other_measures_have_a_column_each(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    plain = markdown_table(rows).splitlines()
    for line, values in ((1, (0.7, 0.7)), (2, (0.6, 0.8))):
        rows[line]["measures"] = {
            "without_twins": {"heading": "OA, without 3", "accuracy": spread(*values)},
            "by_other_labels": {"heading": "OA, by a|b.csv", "accuracy": spread(*values)},
        }
    # A run of an older version.
    rows[4]["measures"] = {name: {"heading": "", "accuracy": None} for name in rows[1]["measures"]}
    lines = markdown_table(rows).splitlines()
    assert lines[0] == plain[0] + r" OA, without 3 | OA, by a\|b.csv |"
    assert lines[5] == plain[5] + " 70.0 ± 14.1 | 70.0 ± 14.1 |" and lines[7] == plain[7] + "  |  |"
    assert len({line.replace(r"\|", "").count("|") for line in lines}) == 1
    write_csv(rows, tmp_path / "cells.csv", tmp_path / "runs.csv")
    with open(tmp_path / "runs.csv", newline="") as file:
        assert [line["by_other_labels_overall_accuracy"] for line in csv.DictReader(file)] == [
            "0.7",
            "0.7",
            "0.6",
            "0.8",
            "",
            "",
        ]


def test_one_csv_has_a_line_a_cell_and_one_a_line_a_run(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    cells, runs = tmp_path / "cells.csv", tmp_path / "runs.csv"
    without_runs = {"norm": "bn", "head_norm": "bn", "micro_batches": [1], "runs": []}
    write_csv([without_runs, *rows[1:3], rows[4]], cells, runs)
    with open(runs, newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["norm"], line["micro_batches"], float(line["best_overall_accuracy"])) for line in lines] == [
        ("bn", "2", 0.8), ("bn", "2", 0.9), ("bn", "32", 0.8), ("bn", "32", 0.9),
        ("ws_gn", "1 2 32", 0.8), ("ws_gn", "1 2 32", 0.9),
    ]  # fmt: skip
    with open(cells, newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["num_runs"] for line in lines] == ["0", "2", "2", "2"]
    assert lines[0]["best_overall_accuracy_mean"] == lines[0]["seconds_per_epoch_std"] == ""
    assert float(lines[1]["best_overall_accuracy_mean"]) == pytest.approx(0.85)
    assert float(lines[1]["best_overall_accuracy_std"]) == pytest.approx(0.1 / 2**0.5)


def test_the_search_marks_what_it_chose() -> None:
    entry = {"norm": "bn", "head_norm": "bn", "optimizer": "adam", "lr": 0.001}
    text = search_table([entry | {"validation_accuracy": 0.912, "chosen": True}, entry | {"failure": "nan"}])
    assert "| `bn` | bn | adam | 0.001 | **91.2** |" in text and "failed: nan" in text


def test_the_page_stands_alone(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    pictures = [tmp_path / "study.png", tmp_path / "cost.png"]
    draw_accuracy(rows, "a study", pictures[0])
    draw_cost(rows, "a study", pictures[1])
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    study = {"title": "shapes & more", "command": "python main.py compare", "search": [], "cells": rows}
    study |= {"settings": {"epochs": 5}, "environment": {"torch": "2"}}
    write_html(study, pictures, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert "shapes &amp; more" in page and "&lt;cannot&gt;" in page and "epochs: 5" in page
    seen: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            seen.extend(value or "" for name, value in attrs if name in ("src", "href"))

    Links().feed(page)
    assert len(seen) == 2 and all(link.startswith("data:image/png;base64,") for link in seen)


@pytest.mark.parametrize("sizes", [[2], [1, 8, 32]])
def test_a_study_of_one_micro_batch_and_of_several(tmp_path: Path, sizes: list[int]) -> None:
    rows = [row(tmp_path, "bn", [size]) for size in sizes] + [row(tmp_path, "ws_gn", sizes)]
    draw_accuracy(rows, "a study", tmp_path / "study.png")
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved, drawn and laid out."""
    figures: list[Figure] = []

    def draw(figure: Figure, path: Path) -> None:
        FigureCanvasAgg(figure).draw()
        figures.append(figure)

    monkeypatch.setattr("dgcnn_ws.study.study_plots.save", draw)
    return figures


def is_drawn(text: Text, figure: Figure) -> bool:
    """Whether a text is seen: matplotlib keeps ticks outside of the axis, without drawing them."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if text in (tick.label1, tick.label2):
                return bool(text.get_visible() and low <= tick.get_loc() <= high)
    return bool(text.get_visible())


@pytest.mark.parametrize("costs", [(0, 0), (41, 41.9), (13, 105), (0.02, 4e4)])
def test_no_text_of_a_crowded_picture_covers_another(
    tmp_path: Path, shown: list[Figure], costs: tuple[float, float]
) -> None:
    sizes = [1, 2, 4, 8, 16, 32]
    kinds = [(norm, head) for norm in ("bn", "ws_bn", "gn", "ws_gn", "ws_bcn") for head in ("bn", "est")]
    rows = []
    for i, (norm, head) in enumerate(kinds):
        for j, size in enumerate(sizes):
            cost = spread(costs[0] + (costs[1] - costs[0]) * (i * len(sizes) + j) / 59)
            change = {"head_norm": head, "seconds_per_epoch": cost, "memory_bytes": cost}
            rows.append(row(tmp_path, norm, [size], **change))
    draw_cost(rows, "a study", tmp_path / "cost.png")
    draw_accuracy(rows, "a study", tmp_path / "study.png")
    draw_accuracy([r for r in rows if r["micro_batches"] == [8]], "a study", tmp_path / "study.png")
    for figure in shown:
        boxes = [
            text.get_window_extent() for text in figure.findobj(Text) if text.get_text() and is_drawn(text, figure)
        ]
        assert len(boxes) > 20 and all(len(axes.get_xticks()) > 1 for axes in figure.axes)
        page = figure.bbox.padded(1)
        for i, box in enumerate(boxes):
            assert page.containsx(box.x0) and page.containsx(box.x1)
            assert page.containsy(box.y0) and page.containsy(box.y1)
            assert not box.padded(-1).count_overlaps(boxes[i + 1 :])


def test_a_reason_has_the_room_of_the_empty_cells_behind_it() -> None:
    assert _html_cells(["bn", "", "why", "", ""]) == "<td>bn</td><td></td><td colspan=3>why</td>"
    assert _html_cells(["a", "", "b"]) == "<td>a</td><td></td><td>b</td>"
    assert _html_cells(["", ""]) == "<td colspan=2></td>"
