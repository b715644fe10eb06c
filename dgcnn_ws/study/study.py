"""A study: a grid of runs that differ in norm, head norm, micro-batch and seed, and the numbers of its table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from dgcnn_ws.engine.folder.checkpoint import read_json
from dgcnn_ws.engine.recipe import Optimizer, Recipe, complete, default_head
from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.norm import norm_kind
from dgcnn_ws.study.pool import Job
from dgcnn_ws.study.statistics import Difference, paired_difference

Kind = tuple[str, str]  # norm and head norm


@dataclass(frozen=True)
class Cell:
    """One place of the grid: runs that differ in their seed alone, or the reason why there can be none.

    `micro_batches` are those that the runs stand for: several where the result does not depend on them.
    """

    norm: str
    head_norm: str
    micro_batches: tuple[int, ...]
    recipes: tuple[Recipe, ...] = ()
    refusal: str | None = None

    def jobs(self, study: Path) -> list[Job]:
        stem = f"{self.norm}-{self.head_norm}-mb{max(self.micro_batches)}"
        return [Job(recipe, study / f"{stem}-seed{recipe.seed}") for recipe in self.recipes]


def ignores_micro_batch(recipe: Recipe) -> bool:
    """Whether a completed recipe gives the same run at every micro-batch, up to rounding and the draw of dropout.

    So it is where no layer sees more than one cloud at a time: the gradient of a batch is then the mean of its
    clouds' gradients. Running estimates (`ws_bcn`, the `est` head) change once an optimizer step and keep that law; a
    head that sees the whole batch (`bn_whole`) does so in any micro-batch.
    """
    return not norm_kind(recipe.norm).uses_batch_statistics and recipe.head_norm != "bn"


def make_grid(
    base: Recipe,
    norms: list[str],
    head_norms: list[str],
    micro_batches: list[int],
    seeds: list[int],
    *,
    law: bool = True,
    true_small_batch: bool = False,
    chosen: Mapping[Kind, Recipe | str] | None = None,
) -> list[Cell]:
    """Return every combination, once; a head norm `default` is each norm's own.

    Args:
        law: one cell stands for all micro-batches where the result does not depend on them.
        true_small_batch: the micro-batch is the optimizer's batch too, its learning rate scaled linearly.
        chosen: what a search chose for each kind (`choose`): optimizer and learning rate, or why there is nothing.

    Raises InputError for a setting that is wrong in every cell; one that is wrong in some becomes their refusal.
    """
    for size in micro_batches if not true_small_batch else ():
        if size < 1 or base.batch_size % size:
            raise InputError(f"--micro-batches {size} does not divide --batch-size {base.batch_size}.")
    cells: dict[tuple[str, str, tuple[int, ...]], Cell] = {}
    for recipe in make_kinds(base, norms, head_norms, micro_batches, law=law, true_small_batch=true_small_batch):
        kind = (recipe.norm, recipe.head_norm or "")
        if chosen is not None:
            choice = chosen[kind]
            if isinstance(choice, str):
                cells[*kind, tuple(micro_batches)] = Cell(*kind, tuple(micro_batches), refusal=choice)
                continue
            recipe = replace(recipe, optimizer=choice.optimizer, lr=choice.lr)
        together = law and ignores_micro_batch(recipe) and not true_small_batch
        for sizes in [tuple(micro_batches)] if together else [(size,) for size in micro_batches]:
            try:
                recipes = tuple(complete(replace(_at(recipe, max(sizes), true_small_batch), seed=s)) for s in seeds)
                cells[*kind, sizes] = Cell(*kind, sizes, recipes)
            except InputError as error:
                cells[*kind, sizes] = Cell(*kind, sizes, refusal=str(error))
    if not any(cell.recipes for cell in cells.values()):
        raise InputError(next(iter(cells.values())).refusal)
    return list(cells.values())


def make_kinds(
    base: Recipe,
    norms: list[str],
    head_norms: list[str],
    micro_batches: list[int],
    *,
    law: bool = True,
    true_small_batch: bool = False,
) -> list[Recipe]:
    """Return a completed recipe for each norm and head norm, with the whole batch as micro-batch.

    That is the easiest: what fails there is the user's mistake, not a finding. A head `default` is what the norm has
    by itself at the smallest micro-batch that is trained, so that one kind has one head.
    """
    least = max(micro_batches) if law and not true_small_batch else min(micro_batches)
    smallest = replace(base, micro_batch=least, batch_size=least if true_small_batch else base.batch_size)
    recipes = []
    for norm, head in product(norms, head_norms):
        kind: dict[str, Any] = {"norm": norm, "head_norm": head}
        if head == "default":
            kind["head_norm"] = default_head(replace(smallest, **kind | {"head_norm": None}))
        recipes.append(complete(replace(base, micro_batch=None, **kind)))
    return list(dict.fromkeys(recipes))


def _at(recipe: Recipe, micro_batch: int, true_small_batch: bool) -> Recipe:
    if not true_small_batch:
        return replace(recipe, micro_batch=micro_batch)
    assert recipe.lr is not None
    scale = micro_batch / recipe.batch_size
    return replace(recipe, batch_size=micro_batch, micro_batch=micro_batch, lr=recipe.lr * scale)


# --- the search: the same trials for every kind, at the whole batch, judged on validation ---


def make_trials(kinds: list[Recipe], trials: list[tuple[Optimizer, float]], study: Path) -> dict[Kind, list[Job]]:
    """Return the runs of a search: each kind with each optimizer and learning rate. They never read the test set."""
    search: dict[Kind, list[Job]] = {}
    for recipe in kinds:
        stem = f"{recipe.norm}-{recipe.head_norm}"
        search[recipe.norm, recipe.head_norm or ""] = [
            Job(
                complete(replace(recipe, optimizer=name, lr=lr, select="val")),
                study / "search" / f"{stem}-{name}-{lr:g}",
                test=False,
            )
            for name, lr in trials
        ]
    return search


def choose(kind: Kind, trials: list[Job]) -> tuple[Recipe | str, list[dict[str, Any]]]:
    """Return the trial with the best validation accuracy after its last epoch (ties: lower loss), and a record of all.

    In the trial's place stands a sentence where every trial failed.
    """
    record = []
    for job in trials:
        entry: dict[str, Any] = {"norm": kind[0], "head_norm": kind[1]}
        entry |= {"optimizer": job.recipe.optimizer, "lr": job.recipe.lr, "folder": str(job.folder)}
        if job.finished:
            last = read_results(job)["last_epoch"]
            entry |= {"validation_accuracy": last["overall_accuracy"], "validation_loss": last["loss"]}
        else:
            entry["failure"] = job.failure()
        record.append(entry)
    finished = [i for i, entry in enumerate(record) if "validation_accuracy" in entry]
    if not finished:
        return f"every trial of the search failed, the last one so: {record[-1]['failure']}", record
    best = max(finished, key=lambda i: (record[i]["validation_accuracy"], -record[i]["validation_loss"]))
    record[best]["chosen"] = True
    return trials[best].recipe, record


# --- the numbers of the table ---

SCORES = ("overall_accuracy", "mean_class_accuracy")


@dataclass(frozen=True)
class Measure:
    """Another score of the same answers: which test clouds (n,) count, and what is right of each (n,).

    `name` is what files call it, `heading` what a table does.
    """

    name: str
    heading: str
    counted: np.ndarray
    labels: list[int]


def read_results(job: Job) -> dict[str, Any]:
    """Return a finished run's results. Raises InputError where the file is damaged."""
    path = job.folder / "results.json"
    results = read_json(path)
    expected = {"seconds", "memory_bytes"}
    parts = {"last_epoch"} | ({"best", "last"} if job.test else set())
    scores = [results.get(name) for name in parts] if isinstance(results, dict) else [None]
    whole = all(isinstance(score, dict) and are_numbers(score, {*SCORES}) for score in scores)
    if not whole or not are_numbers(results, expected):
        raise InputError(f"{path} is damaged, or too old. Delete it, and the same command scores the run again.")
    return results


def are_numbers(record: dict[str, Any], names: set[str]) -> bool:
    return all(type(record.get(name)) in (int, float) for name in names)


def summarize(
    cell: Cell,
    study: Path,
    baseline: Cell | None = None,
    labels: Sequence[int] = (),
    measures: Sequence[Measure] = (),
) -> dict[str, Any]:
    """Return a cell's figures over its finished seeds: scores on test of best.pt and last.pt, time and memory.

    Args:
        baseline: what the accuracy of best.pt is compared with, seed by seed.
        labels: of the test clouds.
        measures: by which the answers of best.pt are scored besides.
    """
    jobs = cell.jobs(study)
    finished = [job for job in jobs if job.finished]
    summary: dict[str, Any] = {
        "norm": cell.norm,
        "head_norm": cell.head_norm,
        "micro_batches": list(cell.micro_batches),
        "refusal": cell.refusal,
        "selected_on": cell.recipes[0].select if cell.recipes else None,
        "runs": [str(job.folder) for job in finished],
        "failures": {str(job.folder): job.failure() for job in jobs if not job.finished},
    }
    results = [read_results(job) for job in finished]
    if results:
        for which in ("best", "last", "best_by_batch_statistics", "last_by_batch_statistics"):
            for score in SCORES if all(which in result for result in results) else ():
                summary[f"{which}_{score}"] = _spread([result[which][score] for result in results])
        summary["measures"] = {m.name: {"heading": m.heading, "accuracy": _by(m, results)} for m in measures}
        difference = _difference(finished, baseline.jobs(study) if baseline else [], labels)
        summary |= {"difference": asdict(difference)} if difference else {}
        summary["num_clouds"] = results[0]["best"]["num_clouds"]
        assert cell.recipes[0].epochs is not None
        summary["seconds_per_epoch"] = _spread([result["seconds"] / cell.recipes[0].epochs for result in results])
        summary["memory_bytes"] = _spread([result["memory_bytes"] for result in results])
    return summary


def find_baseline(cells: list[Cell]) -> Cell | None:
    """Return what the others are compared with: batch norm throughout, at the largest micro-batch; None without it."""
    found = [cell for cell in cells if (cell.norm, cell.head_norm) == ("bn", "bn") and cell.recipes]
    return max(found, key=lambda cell: max(cell.micro_batches), default=None)


def _difference(jobs: list[Job], others: list[Job], labels: Sequence[int]) -> Difference | None:
    """Return how much more accurate best.pt of `jobs` is, over seeds that both have; None where none is, or itself."""
    of_others = {job.recipe.seed: job for job in others if job.finished}
    pairs = [(job, of_others[job.recipe.seed]) for job in jobs if job.recipe.seed in of_others]
    right = [[_right(read_results(job), labels) for job in pair] for pair in pairs]
    ours, theirs = ([found for pair in right if (found := pair[i]) is not None] for i in range(2))
    if not pairs or len(ours) + len(theirs) < 2 * len(pairs) or jobs[0].folder == others[0].folder:
        return None
    return paired_difference(ours, theirs)


def _by(measure: Measure, results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the accuracy of best.pt by a measure; None where a run, of an older version, did not keep its answers."""
    right = [_right(result, measure.labels) for result in results]
    shares = [float(found[measure.counted].mean()) for found in right if found is not None]
    return _spread(shares) if len(shares) == len(results) else None


def _right(results: dict[str, Any], labels: Sequence[int]) -> np.ndarray | None:
    """Return which test clouds best.pt names as `labels` do (n,) bool, or None where its answers are not known."""
    answers = results["best"].get("answers")
    known = isinstance(answers, list) and len(answers) == len(labels)
    return np.array([answer == label for answer, label in zip(answers, labels, strict=True)]) if known else None


def _spread(values: list[float]) -> dict[str, Any]:
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None, "values": values}
