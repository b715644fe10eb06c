"""What normals are worth on meshes, in numbers: test accuracy with `--features normals` and without.

    python -m scripts.checks.normals --seeds 0 1 2

The meshes are the built-in shapes' own surfaces, 16 classes, stretched and turned at random as the built-in data set
is, but without its holes and noise. `prepare --features normals` draws points of them, so that both networks see the
same places; the settings are the same too, and validation chooses the checkpoint.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import dgcnn_ws
from dgcnn_ws import Recipe
from dgcnn_ws.datasets.built_in.furniture import CLASSES
from dgcnn_ws.datasets.built_in.shapes import DIFFICULTY
from dgcnn_ws.datasets.preparing.prepare import Settings, prepare
from dgcnn_ws.datasets.solids import rotation

PER_CLASS = {"train": 40, "test": 15}
SETTINGS: dict[str, Any] = {
    "num_points": 128,
    "k": 10,
    "emb_dims": 128,
    "epochs": 6,
    "batch_size": 16,
    "rotate": "none",
}

SEEN: dict[str, dict[str, Any]] = {
    "places alone": {},
    "normals, graph on coordinates": {"features": "normals"},
    "normals, graph on all": {"features": "normals", "graph": "all"},
}


def mesh(class_name: str, rng: np.random.Generator) -> np.ndarray:
    """Return triangles (T, 3, 3) of a shape of a class, y up."""
    triangles = np.concatenate([surface for _, surface in CLASSES[class_name](rng)])
    triangles = triangles * np.exp(rng.uniform(-1, 1, 3) * DIFFICULTY["axis_scale"])
    turned: np.ndarray = triangles @ rotation(1, rng.uniform(-1, 1) * DIFFICULTY["yaw"]).T
    return turned


def write_off(triangles: np.ndarray, path: Path) -> None:
    corners = "\n".join(" ".join(f"{value:.6f}" for value in corner) for corner in triangles.reshape(-1, 3))
    faces = "\n".join(f"3 {3 * i} {3 * i + 1} {3 * i + 2}" for i in range(len(triangles)))
    path.write_text(f"OFF\n{3 * len(triangles)} {len(triangles)} 0\n{corners}\n{faces}\n")


def write_meshes(folder: Path) -> None:
    """Write .off files as <split>/<class>/<number>.off."""
    for stream, (split, count) in enumerate(PER_CLASS.items()):
        for label, class_name in enumerate(CLASSES):
            (folder / split / class_name).mkdir(parents=True)
            for number in range(count):
                rng = np.random.default_rng([stream, label, number])
                write_off(mesh(class_name, rng), folder / split / class_name / f"{number}.off")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_meshes(folder / "meshes")
        prepare(folder / "meshes", folder / "clouds", Settings(num_points=512, up="y", features=("normals",)))
        print(f"{PER_CLASS} of each of {len(CLASSES)} classes, {SETTINGS}, torch {torch.__version__}", flush=True)
        for seed in seeds:
            for seen, choice in SEEN.items():
                recipe = Recipe(dataset=str(folder / "clouds"), seed=seed, **SETTINGS | choice)
                found = dgcnn_ws.train(recipe, folder / f"{seen} {seed}", quiet=True)
                print(f"seed {seed}  {seen:30} {found['best']['overall_accuracy']:.1%}", flush=True)


if __name__ == "__main__":
    main()
