"""`runs DIR`: the runs in a folder and below it, with settings, best score, state and age.

States: running (a process trains it), interrupted (it goes on with the same command and --resume), failed (the note
says why), finished. The score is that of validation, chosen by which best.pt is; * marks runs that chose on test.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.errors import InputError
from dgcnn_ws.text_table import aligned

if TYPE_CHECKING:
    from dgcnn_ws.study.runs import RunSummary


def state(run: "RunSummary") -> tuple[int, str]:
    from dgcnn_ws.study.runs import STATES

    return STATES.index(run.state), run.name


SORTS: "dict[str, Callable[[RunSummary], Any]]" = {
    "name": lambda run: run.name,
    "state": state,
    "age": lambda run: run.age_seconds,
    "score": lambda run: math.inf if run.score is None else -run.score,
    "test": lambda run: math.inf if run.test_accuracy is None else -run.test_accuracy,
}
WIDEST = 60  # characters of a name


@dataclass(frozen=True)
class Arguments:
    folder: Annotated[Path, tyro.conf.Positional] = Path("runs")
    """Where to look, folders of studies included."""
    sort: Literal["name", "state", "age", "score", "test"] = "name"
    """Order: of age the latest first, of score and test the best."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print JSON instead: a list of runs, with accuracies as shares and ages in seconds."""


def age(seconds: float) -> str:
    """Return a time in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def score(run: "RunSummary") -> str:
    if run.score is None:
        return "-"
    mark = "*" if run.selected_on == "test" else ""
    return f"{percent(run.score)}{' mIoU' if run.task == 'segment' else ''}{mark}"


def short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


def others(run: "RunSummary") -> str:
    """Return the flags that would repeat what no other column says."""
    flags = {name.replace("_", "-"): value for name, value in run.unusual.items()}
    return " ".join(f"--{name}" if value is True else f"--{name} {value}" for name, value in flags.items())


# The columns: heading, alignment, a run's text.
COLUMNS: "list[tuple[str, str, Callable[[RunSummary], str]]]" = [
    ("run", "<", lambda run: short(run.name)),
    ("data", "<", lambda run: short(run.dataset or "?")),
    ("norm", "<", lambda run: run.norm or "?"),
    ("head", "<", lambda run: run.head_norm or "?"),
    ("batch", ">", lambda run: f"{run.micro_batch}/{run.batch_size}" if run.batch_size else "?"),
    ("other settings", "<", others),
    ("epochs", ">", lambda run: f"{run.epochs_done}/{run.epochs or '?'}"),
    ("best %", ">", score),
    ("at", ">", lambda run: "-" if run.best_epoch is None else str(run.best_epoch)),
    ("test %", ">", lambda run: percent(run.test_accuracy)),
    ("state", "<", lambda run: run.state),
    ("age", ">", lambda run: age(run.age_seconds)),
    ("", "<", lambda run: run.note),
]


def table(runs: "list[RunSummary]") -> str:
    lines = [[heading for heading, _, _ in COLUMNS]] + [[text(run) for _, _, text in COLUMNS] for run in runs]
    return "\n".join(aligned(lines, "".join(sign for _, sign, _ in COLUMNS)))


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "runs", arguments, __doc__)
    if not args.folder.is_dir():
        raise InputError(f"{args.folder} is not a folder. Name the one that train or compare wrote to.")
    from dgcnn_ws.study.runs import find_runs, summarize_run

    runs = sorted((summarize_run(folder, args.folder) for folder in find_runs(args.folder)), key=SORTS[args.sort])
    if args.json:
        print(json.dumps([asdict(run) for run in runs], indent=1))
        return
    if not runs:
        print(f"no runs in {args.folder}")
        return
    print(table(runs))
    print("\nbatch: micro-batch (each process's)/batch; best %: on validation, at that epoch; test %: of best.pt, OA")
    if any(run.selected_on == "test" for run in runs):
        print("* chosen ON THE TEST SET: no honest estimate")
