"""`python main.py prepare SOURCE --out DIR`: your own meshes or clouds, or Princeton's ModelNet, as a data set.

SOURCE is a folder or zip file of <class>/<file> or <class>/<train|test>/<file>, as ModelNet40.zip is. Files end in
off, obj, ply, stl, glb (points are drawn from their surface by area), npy, npz, xyz, txt or pts (points as they are:
of more, a random choice; of fewer, all of them, repeated). Every cloud gets zero mean and fits the unit sphere.
Train on it with `python main.py train --dataset DIR`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from dgcnn_ws.datasets.prepare import Settings, prepare
from dgcnn_ws.engine.arguments import SKIPPED_SOME


@dataclass(frozen=True)
class Arguments:
    source: Annotated[Path, tyro.conf.Positional]
    """Folder or zip file that holds the class folders."""
    out: Path
    """Folder to write; it must not exist."""
    num_points: int = 2048
    """Points stored of each shape; training may use fewer."""
    up: str = "z"
    """Axis that points up in the files: z (ModelNet's .off) | y (glTF). It becomes y, as in the HDF5 files."""
    test_fraction: float = 0.2
    """Share of each class that becomes test, where SOURCE has no train and test folders."""
    seed: int = 0
    """Decides that share, and the points drawn."""
    jobs: int = 2
    """Processes; their number does not change the result."""
    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Stop at the first file that cannot be read. Otherwise it is named and left out, and the exit code is 3."""


def main(arguments: list[str]) -> int:
    args = tyro.cli(Arguments, prog="main.py prepare", args=arguments, description=__doc__)
    settings = Settings(args.num_points, args.up, args.test_fraction, args.seed)
    report = prepare(args.source, args.out, settings, args.jobs, args.strict)
    for entry in report.skipped:
        print(f"skipped: {entry['reason']}")
    counts = " and ".join(f"{count} {split}" for split, count in report.written.items())
    print(f"{args.out}: {counts} clouds of {args.num_points} points, {len(report.class_names)} classes, {args.up} up")
    if report.repeated:
        print(f"{report.repeated} clouds have fewer points than that: theirs are repeated.")
    if report.skipped:
        print(f"{len(report.skipped)} files could not be read; prepare.json lists them.")
    return SKIPPED_SOME if report.skipped else 0
