"""A study: a grid of runs that differ in norm, head norm, micro-batch and seed, and the table they make."""

from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from dgcnn_ws.engine.checkpoint import read_json
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.training import Run, check_settings
from dgcnn_ws.errors import InputError


@dataclass(frozen=True)
class Cell:
    """One place of the grid: runs that differ in their seed alone, or the reason why there can be none."""

    norm: str
    head_norm: str
    micro_batch: int
    recipes: tuple[Recipe, ...] = ()
    refusal: str | None = None

    def folders(self, study: Path) -> list[Path]:
        """Return the runs' folders inside the study's."""
        stem = f"{self.norm}-{self.head_norm}-mb{self.micro_batch}"
        return [study / f"{stem}-seed{recipe.seed}" for recipe in self.recipes]


def make_grid(
    base: Recipe, norms: list[str], head_norms: list[str], micro_batches: list[int], seeds: list[int]
) -> list[Cell]:
    """Return every combination; a head norm `default` is each norm's own.

    Raises InputError for a setting that is wrong in every cell; one that is wrong in some becomes their refusal.
    """
    cells: list[Cell] = []
    for norm in norms:
        for head_norm in head_norms:
            recipe = replace(base, norm=norm, head_norm=None if head_norm == "default" else head_norm)
            # The whole batch at once is the easiest: what fails there is the user's mistake, not a finding.
            complete(replace(recipe, micro_batch=None))
            for micro_batch in micro_batches:
                recipe = replace(recipe, micro_batch=micro_batch)
                try:
                    recipes = tuple(complete(replace(recipe, seed=seed)) for seed in seeds)
                    cells.append(Cell(norm, recipes[0].head_norm or "", micro_batch, recipes))
                except InputError as error:
                    cells.append(Cell(norm, head_norm, micro_batch, refusal=str(error)))
    if not any(cell.recipes for cell in cells):
        raise InputError(cells[0].refusal)
    return cells


def run_study(cells: list[Cell], study: Path) -> list[dict[str, Any]]:
    """Train what is not trained yet, resume what was interrupted, and return one summary a cell.

    Raises InputError where a folder holds a run of other settings: a table must not mix them.
    """
    runs = [run for cell in cells for run in zip(cell.recipes, cell.folders(study), strict=True)]
    for recipe, folder in runs:  # all of them, before hours go into the first
        if (folder / "config.json").exists():
            check_settings(recipe, folder)
    for number, (recipe, folder) in enumerate(runs, 1):
        if not (folder / "results.json").exists():
            print(f"run {number} of {len(runs)}: {folder.name}", flush=True)
            Run(recipe, folder, resume=(folder / "config.json").exists()).train()
    return [summarize(cell, study) for cell in cells]


def summarize(cell: Cell, study: Path) -> dict[str, Any]:
    """Return a cell's scores on test over its seeds: mean and standard deviation, for best.pt and last.pt."""
    summary: dict[str, Any] = {
        "norm": cell.norm,
        "head_norm": cell.head_norm,
        "micro_batch": cell.micro_batch,
        "refusal": cell.refusal,
        "selected_on": cell.recipes[0].select if cell.recipes else None,
    }
    results = [read_json(folder / "results.json") for folder in cell.folders(study)]
    summary["runs"] = [str(folder) for folder in cell.folders(study)]
    if results:
        for which in ("best", "last"):
            for score in ("overall_accuracy", "mean_class_accuracy"):
                values = [result[which][score] for result in results]
                spread = stdev(values) if len(values) > 1 else None
                summary[f"{which}_{score}"] = {"mean": mean(values), "std": spread, "values": values}
        summary["num_clouds"] = results[0]["best"]["num_clouds"]
        summary["seconds"] = mean(result["seconds"] for result in results)
        summary["clouds_per_second"] = mean(result["clouds_per_second"] for result in results)
    return summary


def _percent(score: dict[str, Any]) -> str:
    spread = "" if score["std"] is None else f" ± {100 * score['std']:.1f}"
    return f"{100 * score['mean']:.1f}{spread}"


def markdown_table(summaries: list[dict[str, Any]]) -> str:
    """Return the study as a Markdown table, accuracies in % on the test set."""
    chosen = "ON THE TEST SET" if any(row["selected_on"] == "test" for row in summaries) else "on validation"
    lines = [
        f"| norm | head | micro-batch | OA, chosen {chosen} | mAcc | OA, last | runs | seconds a run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in summaries:
        start = f"| `{row['norm']}` | {row['head_norm']} | {row['micro_batch']} |"
        if row["refusal"]:
            lines.append(f"{start} cannot train: {row['refusal']} | | | | |")
            continue
        scores = [row["best_overall_accuracy"], row["best_mean_class_accuracy"], row["last_overall_accuracy"]]
        cells = " | ".join(_percent(score) for score in scores)
        lines.append(f"{start} {cells} | {len(row['runs'])} | {row['seconds']:.0f} |")
    return "\n".join(lines)
