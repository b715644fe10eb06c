"""The tables of docs/RESULTS.md say what the runs in docs/studies/ scored, and these are whole."""

import json
import re
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from dgcnn_ws.cli.inspect_dataset import SHARED
from dgcnn_ws.study.runs import find_runs

DOCS = Path(__file__).parents[2] / "docs"
STUDIES = sorted(path for path in (DOCS / "studies").iterdir() if path.is_dir())


def read(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    config, results = (json.loads((run / name).read_text()) for name in ("config.json", "results.json"))
    return config, results


def percent(values: list[float]) -> str:
    return f"{100 * mean(values):.1f}" + (f" ± {100 * stdev(values):.1f}" if len(values) > 1 else "")


def rows_of(study: str) -> dict[tuple[str, ...], list[str]]:
    """Return the first table after the study's mark, by norm, head and micro-batch."""
    text = (DOCS / "RESULTS.md").read_text().split(f"<!-- docs/studies/{study} -->")[1]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in table[0].splitlines()[2:]]
    return {tuple(row[:3]): row[3:] for row in rows}


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_the_table_is_that_of_the_runs(study: Path) -> None:
    cells: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for run in find_runs(study):
        config, results = read(run)
        alone = config["norm"] not in ("bn", "ws_bn") and config["head_norm"] != "bn"
        sizes = "any" if alone else str(config["micro_batch"])
        cells.setdefault((config["norm"], config["head_norm"], sizes), []).append(results)
    rows = rows_of(study.name)
    for cell, of_cell in cells.items():
        scores = [("best", "overall"), ("best", "mean_class"), ("last", "overall"), ("last", "mean_class")]
        expected = [percent([results[which][f"{score}_accuracy"] for results in of_cell]) for which, score in scores]
        assert rows[cell][:5] == [*expected, str(len(of_cell))], cell


def test_the_list_of_twins_is_the_one_that_the_page_counts() -> None:
    listed = json.loads((DOCS / "studies/modelnet40_near_duplicates.json").read_text())
    text = " ".join((DOCS / "RESULTS.md").read_text().split())
    test, val = (len({pair[split] for pair in listed["near_duplicates"][split]}) for split in ("test", "val"))
    same = len({pair["test"] for pair in listed["near_duplicates"]["test"] if pair["shared"] > SHARED})
    assert f"Of the 2,468 test shapes {test} ({test / 24.68:.1f} %)" in text
    assert f"{same} of them by the same points" in text
    assert f"of the 984 shapes that choose `best.pt`, {val} ({val / 9.84:.1f} %)" in text


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.name)
def test_runs_are_whole_and_name_no_place(study: Path) -> None:
    settings = []
    for run in find_runs(study):
        config, results = read(run)
        assert config["data_root"] == "data" and (run / "metrics.jsonl").read_text().count("\n") == config["epochs"]
        answers = results["best"]["answers"]
        confusion = results["best"]["confusion"]
        assert len(answers) == sum(map(sum, confusion)) == results["best"]["num_clouds"]
        assert [answers.count(i) for i in range(len(confusion))] == [
            sum(column) for column in zip(*confusion, strict=True)
        ]
        settings.append({name: config[name] for name in ("dataset", "num_points", "epochs", "k", "emb_dims", "data")})
    assert settings and all(setting == settings[0] for setting in settings)
