"""`python main.py compare`: train a grid of norms and micro-batches; ends with a table and a picture.

Every run has its folder; one that is finished is not repeated, one that was interrupted goes on.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dgcnn_ws.engine import plots
from dgcnn_ws.engine.checkpoint import replacing, write_json
from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.engine.study import make_grid, markdown_table, run_study
from dgcnn_ws.errors import InputError


@dataclass(frozen=True)
class Arguments:
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    norms: str = "bn,ws_gn"
    """Norms to compare, with commas between."""
    head_norms: str = "default"
    """Head norms to compare; default: each norm's own."""
    micro_batches: str = "2,32"
    """Micro-batches to compare, with commas between."""
    seeds: int = 1
    """Runs of each kind, with seeds --seed, --seed + 1, ..."""
    out: Path = Path("runs")
    """Folder of runs."""
    name: str = "study"
    """The study's folder inside it."""


# A flag of one run, and the list that takes its place here.
LISTS = {"norm": "--norms", "head_norm": "--head-norms", "micro_batch": "--micro-batches"}


def words(flag: str, text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"{flag} {text!r} is an empty list. Name at least one, with commas between.")
    return parts


def main(arguments: list[str]) -> None:
    default = Arguments(Recipe())
    args = tyro.cli(Arguments, prog="main.py compare", args=arguments, default=default, description=__doc__)
    for name, flag in LISTS.items():
        if getattr(args.recipe, name) != getattr(default.recipe, name):
            raise InputError(f"--{name.replace('_', '-')} is for one run. Use {flag} to say what is compared.")
    sizes = words("--micro-batches", args.micro_batches)
    if not all(size.isdecimal() for size in sizes):
        raise InputError(f"--micro-batches {args.micro_batches!r} must be whole numbers with commas between.")
    if args.seeds < 1:
        raise InputError(f"--seeds is {args.seeds}, but must be at least 1.")
    cells = make_grid(
        args.recipe,
        words("--norms", args.norms),
        words("--head-norms", args.head_norms),
        [int(size) for size in sizes],
        list(range(args.recipe.seed, args.recipe.seed + args.seeds)),
    )
    study = args.out / args.name
    summaries = run_study(cells, study)
    write_json(study / "study.json", summaries)
    table = markdown_table(summaries)
    with replacing(study / "study.md") as temporary:
        temporary.write_text(table + "\n")
    trained = [cell for cell in cells if cell.recipes]
    runs = {f"{c.norm}, head {c.head_norm}, micro-batch {c.micro_batch}": c.folders(study) for c in trained}
    recipe = trained[0].recipes[0]
    title = f"{recipe.dataset}, {recipe.num_points} points, {recipe.epochs} epochs, batch {recipe.batch_size}"
    plots.draw_study(summaries, runs, title, study / "study.png")
    print(f"\n{table}\n\naccuracies in % on test; see {study}/study.png")
