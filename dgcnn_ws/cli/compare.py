"""`compare`: train a grid of norms and micro-batches; ends with a table and pictures.

Every run has its folder in the study's. One that is finished is not repeated, one that was interrupted goes on, also
by several processes at once: `--jobs N`, or the same command started again, here or on a machine that shares the
folder. A run that fails is recorded, and the others go on.

Where no layer sees the micro-batch (`gn`, `ws_gn`, `ws_bcn` with any head but `bn`) it does not change the result, so
those are trained once for all micro-batches, at the largest, which is the quickest (`--no-law` trains them all, to
check, and to see what each costs).
"""

import shlex
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.cli.arguments import numbers, words
from dgcnn_ws.engine.recipe import Optimizer, Recipe, as_config, check_data_root, dataset_name, name_folder
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import check_folder_of, replacing

if TYPE_CHECKING:
    from dgcnn_ws.datasets import LabelledClouds
    from dgcnn_ws.study import study as studies
    from dgcnn_ws.study.pool import Job


@dataclass(frozen=True)
class Arguments:
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    norms: str = "bn,ws_bn,gn,ws_gn,ws_bcn"
    """Norms to compare, with commas between."""
    head_norms: str = "default"
    """Head norms to compare; default: each norm's own."""
    micro_batches: str = "1,2,4,8,16,32"
    """Micro-batches to compare, with commas between."""
    seeds: int = 3
    """Runs of each kind, with seeds --seed, --seed + 1, ..."""
    true_small_batch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """The micro-batch is the optimizer's batch too, with --lr scaled linearly from --batch-size; otherwise gradients
    accumulate to --batch-size."""
    law: bool = True
    """Train once what the micro-batch does not change."""
    search: str | None = None
    """First try these for every norm and head at the whole batch, and take what is best on validation: optimizer:rate,
    with commas between, such as adam:1e-3,adam:3e-3,sgd:0.1. The test set is not read."""
    jobs: int = 1
    """Runs trained at a time, each with its share of the threads and, where there are several, a GPU of its own."""
    train: bool = True
    """Train what is not finished; --no-train makes the tables and pictures of what is."""
    twins: Path | None = None
    """Also score every run without the shapes that `inspect --near-duplicates --json` found to be training shapes: that
    file. From the answers that the runs' folders keep: nothing is trained for it."""
    labels: Path | None = None
    """Also score every run by other labels: a CSV with columns name,label; a shape whose label is empty does not
    count."""
    report: Path | None = None
    """Write one self-contained HTML page with everything."""
    out: Path = Path("runs")
    """Folder of runs."""
    name: str = "study"
    """The study's folder inside it."""


# A flag of one run, and the list that takes its place here.
LISTS = {"norm": "--norms", "head_norm": "--head-norms", "micro_batch": "--micro-batches"}
REFUSED = (*LISTS, "task", "devices", "nodes", "sync_bn", "start", "freeze")


def parse_trials(text: str) -> list[tuple[Optimizer, float]]:
    trials: list[tuple[Optimizer, float]] = []
    for word in words("--search", text):
        name, _, rate = word.partition(":")
        try:
            trials.append((next(known for known in get_args(Optimizer) if known == name), float(rate)))
        except (StopIteration, ValueError):
            raise InputError(
                f"--search {word!r} is no trial. Write optimizer:rate, as in adam:1e-3; optimizers are "
                f"{', '.join(get_args(Optimizer))}."
            ) from None
    return list(dict.fromkeys(trials))


def parse(arguments: list[str]) -> Arguments:
    default = Arguments(Recipe())
    args = parser.parse(Arguments, "compare", arguments, __doc__, default, hidden=REFUSED)
    check_data_root(args.recipe.dataset, args.recipe.data_root)
    args = replace(args, recipe=name_folder(args.recipe))
    for name, flag in LISTS.items():
        if getattr(args.recipe, name) != getattr(default.recipe, name):
            raise InputError(f"--{name.replace('_', '-')} is for one run. Use {flag} to say what is compared.")
    if {args.recipe.devices, args.recipe.nodes} - {None, 1} or args.recipe.sync_bn:
        raise InputError("compare trains each run in one process. Leave --devices, --nodes and --sync-bn out.")
    args = replace(args, recipe=replace(args.recipe, devices=1, nodes=1))  # also where srun started several
    if args.recipe.task != default.recipe.task:
        raise InputError("compare trains classifiers. Use train --task segment for parts.")
    if args.recipe.start:
        raise InputError("compare trains every network from its first weights. Leave --from out.")
    for flag, value in (("--seeds", args.seeds), ("--jobs", args.jobs)):
        if value < 1:
            raise InputError(f"{flag} is {value}, but must be at least 1.")
    check_folder_of(args.report)
    return args


def search(
    args: Arguments, kinds: list[Recipe], folder: Path
) -> "tuple[dict[studies.Kind, Recipe | str], list[dict[str, Any]]]":
    """Train the trials and return the best recipe of each kind, and the record of all."""
    from dgcnn_ws.study import study as studies
    from dgcnn_ws.study.pool import train_all
    from dgcnn_ws.study.report import search_table

    trials = studies.make_trials(kinds, parse_trials(args.search or ""), folder)
    jobs = [job for of_kind in trials.values() for job in of_kind]
    check_folders(jobs, load(args.recipe, "train").fingerprint())
    if args.train:
        train_all(jobs, args.jobs)
    elif to_go := [job for job in jobs if not job.finished and job.failure() is None]:
        raise InputError(f"{len(to_go)} of {len(jobs)} trials of --search are to go. Leave --no-train out.")
    chosen: dict[studies.Kind, Recipe | str] = {}
    record: list[dict[str, Any]] = []
    for kind, of_kind in trials.items():
        chosen[kind], entries = studies.choose(kind, of_kind)
        record += entries
    print(f"\n{search_table(record)}\n\naccuracies in % on validation, after the last epoch\n")
    return chosen, record


@cache
def load(recipe: Recipe, split: str) -> "LabelledClouds":
    from dgcnn_ws.engine.task import TASKS

    task = TASKS[recipe.task]
    return task.load(recipe, split) if split == "test" else task.load_to_train(recipe, split)


def check_folders(jobs: "list[Job]", data: str) -> None:
    """Raise InputError for a run of other settings or data, or damaged results: before hours go into the first."""
    from dgcnn_ws.engine.folder.run_folder import check_data, check_settings
    from dgcnn_ws.study.study import read_results

    for job in jobs:
        if (job.folder / "config.json").exists():
            check_settings(job.recipe, job.folder)
            check_data(job.folder, data)
        if job.finished:
            read_results(job)


def read_measures(args: Arguments) -> "list[studies.Measure]":
    """Return what answers are scored by beside the labels. Raises InputError where a file is not of this test set."""
    from dgcnn_ws.inference.scoring import read_other_labels, read_twins
    from dgcnn_ws.study.study import Measure

    test, found = load(args.recipe, "test"), list[Measure]()
    if args.twins:
        twins = read_twins(args.twins, test).numpy()
        if twins.all():
            raise InputError(f"{args.twins} leaves no shape of test to score: each is a training shape.")
        heading = f"OA, without training shapes ({twins.sum()})"
        found.append(Measure("without_twins", heading, ~twins, test.labels.tolist()))
    if args.labels:
        counted, labels = read_other_labels(args.labels, test)
        if not counted.any():
            raise InputError(f"{args.labels} leaves no shape of test to score: none has a label.")
        found.append(Measure("by_other_labels", f"OA, by {args.labels.name}", counted.numpy(), labels.tolist()))
    return found


def written(result: dict[str, Any], folder: Path) -> bool:
    """Whether a study's folder holds all files of this result, whichever command it was that wrote them."""
    from dgcnn_ws.engine.folder.checkpoint import read_json

    names = ["study.md", "study.csv", "runs.csv", "study.json"]
    if any(row["runs"] for row in result["cells"]):
        names += ["study.png", "cost.png"]
    if not all((folder / name).exists() for name in names):
        return False
    stored = read_json(folder / "study.json")
    same = ("title", "cells", "search")
    return isinstance(stored, dict) and all(stored.get(key) == result[key] for key in same)


def main(arguments: list[str]) -> None:
    args = parse(arguments)
    sizes = numbers("--micro-batches", args.micro_batches)
    norms, head_norms = words("--norms", args.norms), words("--head-norms", args.head_norms)
    seeds = list(range(args.recipe.seed, args.recipe.seed + args.seeds))
    folder = args.out / args.name
    from dgcnn_ws.engine.folder.checkpoint import write_json
    from dgcnn_ws.engine.folder.claim import wait_for_turn
    from dgcnn_ws.engine.machine.devices import describe_environment, pick_device
    from dgcnn_ws.study import study as studies
    from dgcnn_ws.study.pool import train_all
    from dgcnn_ws.study.report import INTERVALS, markdown_table, write_csv, write_html
    from dgcnn_ws.study.study_plots import draw_accuracy, draw_cost

    protocol = {"law": args.law, "true_small_batch": args.true_small_batch}

    def grid(chosen: dict[studies.Kind, Recipe | str] | None = None) -> list[studies.Cell]:
        return studies.make_grid(args.recipe, norms, head_norms, sorted(sizes), seeds, chosen=chosen, **protocol)

    cells = grid()  # what is wrong with it shows now, not after the search
    kinds = studies.make_kinds(args.recipe, norms, head_norms, sizes, **protocol)
    # Data that cannot be read is one error, not one of every run.
    data = load(args.recipe, "train" if args.recipe.select == "val" else "trainval").fingerprint()
    labels, measures = load(args.recipe, "test").labels.tolist(), read_measures(args)
    record: list[Any] = []
    if args.search is not None:
        chosen, record = search(args, kinds, folder)
        cells = grid(chosen)
    # Seed by seed, so that a study stopped early has all of its cells.
    jobs = [job for of_seed in zip(*(c.jobs(folder) for c in cells if c.recipes), strict=True) for job in of_seed]
    check_folders(jobs, data)
    if args.train:
        train_all(jobs, args.jobs)
    elif not any(job.finished for job in jobs):
        raise InputError(f"no run of this study is finished in {folder}, so there is nothing to make a table of.")

    baseline = studies.find_baseline(cells)
    summaries = [studies.summarize(cell, folder, baseline, labels, measures) for cell in cells]
    recipe = kinds[0]
    apart = ("recipe", "out", "report", "train", "twins", "labels")  # where things are, and what changes no run
    batch = "batch = micro-batch" if args.true_small_batch else f"batch {recipe.batch_size}"
    result = {
        "title": f"{dataset_name(recipe)}, {recipe.num_points} points, {recipe.epochs} epochs, {batch}",
        "command": shlex.join([*parser.command_line(), "compare", *arguments]),
        "settings": {name: value for name, value in as_config(recipe).items() if name not in LISTS}
        | {name: value for name, value in asdict(args).items() if name not in apart},
        "environment": describe_environment(pick_device(args.recipe.device)),
        "search": record,
        "cells": summaries,
    }
    table = markdown_table(summaries)
    # Of several commands that end with the same numbers one writes them.
    with wait_for_turn(folder / ".table"):
        if not written(result, folder):
            if any(row["runs"] for row in summaries):
                draw_accuracy(summaries, str(result["title"]), folder / "study.png")
                draw_cost(summaries, str(result["title"]), folder / "cost.png")
            with replacing(folder / "study.md") as temporary:
                temporary.write_text(table + "\n")
            write_csv(summaries, folder / "study.csv", folder / "runs.csv")
            write_json(folder / "study.json", result)
    print(f"\n{table}\n\naccuracies in % on test, mean ± standard deviation over seeds; see {folder}/")
    if any("difference" in row for row in summaries):
        print(f"differences in points: {INTERVALS}")
    if args.report is not None and any(row["runs"] for row in summaries):
        write_html(result, [folder / "study.png", folder / "cost.png"], args.report)
    failures = {run: reason for row in summaries for run, reason in row["failures"].items()}
    if failures and args.train:
        run, reason = next(iter(failures.items()))
        raise InputError(
            f"{len(failures)} of {len(jobs)} runs failed, the first in {run}: {reason} "
            "The same command tries them again."
        )
