"""`prepare SOURCE --out DIR`: your own meshes or clouds, or Princeton's ModelNet, as a data set.

SOURCE is a folder or zip file that holds <class>/<file> or, with a split of its own, <class>/<train|test>/<file>, as
Princeton's ModelNet40.zip does. Of surfaces (off, obj, ply, stl, glb, gltf, 3mf, wrl, step, stp, iges, igs)
--num-points points are drawn, by area. Of clouds (npy, npz, xyz, txt, pts, asc, csv, pcd, las, laz, e57, ply without
faces) with more points a random choice is stored; of those with fewer all points, some repeated. Every cloud is moved
to zero mean and scaled into the unit sphere. DIR is then a data set: `train --dataset DIR`. The checkpoint remembers
what was done, and `predict` repeats it. At the end stands what a classical method makes of the set in seconds, and
whether its shapes face one way.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.cli.arguments import SKIPPED_SOME


@dataclass(frozen=True)
class Arguments:
    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Folder or zip file that holds the class folders."""
    out: Path
    """Folder to write; it must not exist."""
    num_points: int = 2048
    """Points to store of each shape; training may use fewer."""
    up: Literal["z", "y"] = "z"
    """Axis that points up in the files: z as in ModelNet's .off, y as in glTF. In DIR it is y."""
    test_fraction: float = 0.2
    """Share of each class that becomes test data, where SOURCE has no train and test folders."""
    mirrored: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Store mirror images of the shapes, (x, z, y) of files with z up, as the published ModelNet40 has Princeton's
    meshes: for networks that shall understand its clouds, or be compared on them. Not for shapes of your own."""
    features: str = ""
    """What to keep of each point beside its place, between commas: normals (of a mesh its triangles', else the file's
    own), colour, intensity. For train --features. A file without them is left out."""
    seed: int = 0
    """Decides which shapes become test data, and the points drawn."""
    jobs: int = 2
    """Processes that read files; their number does not change the result."""
    strict: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Stop at a file that cannot be read, and write nothing. Otherwise it is named and left out; exit code 3."""


def main(arguments: list[str]) -> int:
    args = parser.parse(Arguments, "prepare", arguments, __doc__)
    from dgcnn_ws.datasets.frame import features_in
    from dgcnn_ws.datasets.looking.first_look import first_look
    from dgcnn_ws.datasets.preparing.prepare import Settings, prepare

    features = features_in(args.features)
    settings = Settings(args.num_points, args.up, args.test_fraction, args.seed, args.mirrored, features)
    report = prepare(args.source, args.out, settings, args.jobs, args.strict)
    for entry in report.skipped:
        print(f"skipped: {entry['reason']}")
    for reason, count in Counter(line["reason"] for line in report.listing.left_out).items():
        example = next(line["file"] for line in report.listing.left_out if line["reason"] == reason)
        print(f"left out: {count} file{'s' * (count > 1)}, as {example}: {reason}")
    for note in report.listing.notes:
        print(f"note: {note}")
    if report.notes:
        print(f"note: {len(report.notes)} clouds were read in part, as {report.notes[0]['note']}")
    print("\n".join(report.lines()))
    counts = " and ".join(f"{count} {split}" for split, count in report.written.items())
    print(
        f"{args.out}: {counts} clouds of {args.num_points} points, {len(report.class_names)} classes, {args.up} up"
        + ", mirrored" * args.mirrored
        + f", with {' and '.join(features)}" * bool(features)
    )
    print("\n".join(first_look(args.out)))
    if report.repeated:
        print(f"{report.repeated} clouds have fewer points than that: theirs are repeated.")
    if report.dropped:
        print(f"{report.dropped} files or folders gave no cloud; prepare.json lists them.")
    return SKIPPED_SOME if report.dropped else 0
