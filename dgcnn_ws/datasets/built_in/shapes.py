"""Shapes: a procedural data set of furniture and household objects, for work without downloads.

Every cloud is a random member of its class, sampled by area. Proportions of different classes overlap, and
part of the surface is missing, so it is not trivial.
"""

import json
import tempfile
from pathlib import Path

import h5py
import numpy as np

from dgcnn_ws.datasets.built_in.furniture import CLASSES, OPTIONAL_PARTS, PART_NAMES
from dgcnn_ws.datasets.hdf5 import LAYOUT_SUFFIX, read_lines
from dgcnn_ws.datasets.modelnet import HDF5Clouds
from dgcnn_ws.datasets.solids import rotation, sample_surface
from dgcnn_ws.errors import InputError

# How hard the set is. A change makes folders written before it unusable, which they then say.
DIFFICULTY = {
    "axis_scale": 0.2,  # each axis is stretched by exp(U(-a, a)): proportions of different classes overlap
    "yaw": 0.5,  # rotation about the up axis, U(-a, a) rad
    "tilt": 0.05,  # rotation about the two horizontal axes, N(0, a) rad
    "missing": 0.06,  # probability that an optional piece (one leg, one handle...) is left out
    "hole": 0.35,  # up to this share of the surface, around a random point, is not seen: U(0, a)
    "jitter": 0.008,  # noise on every coordinate, N(0, a) in units of the cloud's radius
}
VERSION = 1  # of the geometry in solids.py and furniture.py, and of the sampling below
SEED = 0
STORED_POINTS = 2048
PER_CLASS = {"train": 100, "test": 25}


def sample_cloud(class_name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One cloud: points (2048, 3) float32, zero mean, in the unit sphere; and parts (2048,) uint8."""
    pieces = CLASSES[class_name](rng)
    kept = [p for p in pieces if p[0] not in OPTIONAL_PARTS or rng.random() >= DIFFICULTY["missing"]]
    triangles = np.concatenate([surface for _, surface in kept])
    part = np.repeat([PART_NAMES.index(name) for name, _ in kept], [len(surface) for _, surface in kept])
    triangles = triangles * np.exp(rng.uniform(-1, 1, 3) * DIFFICULTY["axis_scale"])

    hole = rng.uniform(0, DIFFICULTY["hole"])
    count = int(np.ceil(STORED_POINTS / (1 - hole)))
    points, chosen = sample_surface(triangles, count, rng)

    # The points nearest to one of them are the ones not seen; what is left keeps its random order.
    distance = np.square(points - points[0]).sum(1)
    seen = np.sort(np.argsort(distance, kind="stable")[count - STORED_POINTS :])
    points, part = points[seen], part[chosen[seen]]

    turned = rotation(1, rng.uniform(-1, 1) * DIFFICULTY["yaw"])
    for axis in (0, 2):
        turned = rotation(axis, rng.normal() * DIFFICULTY["tilt"]) @ turned
    points = normalize(points @ turned.T)
    points = normalize(points + rng.normal(size=points.shape) * DIFFICULTY["jitter"])
    return points.astype(np.float32), part.astype(np.uint8)


def normalize(points: np.ndarray) -> np.ndarray:
    """Zero mean, and the farthest point at distance 1."""
    points = points - points.mean(0)
    unit: np.ndarray = points / np.sqrt(np.square(points).sum(1).max())
    return unit


def generate(split: str, seed: int = SEED, per_class: int | None = None) -> dict[str, np.ndarray]:
    """A split's arrays `data` (n, 2048, 3), `label` (n, 1) and `part` (n, 2048), classes taking turns."""
    count = (PER_CLASS[split] if per_class is None else per_class) * len(CLASSES)
    names = list(CLASSES)
    label = np.arange(count) % len(names)
    stream = list(PER_CLASS).index(split)
    clouds = [sample_cloud(names[label[i]], np.random.default_rng([seed, stream, i])) for i in range(count)]
    points, parts = zip(*clouds, strict=True)
    return {"data": np.stack(points), "label": label[:, None].astype(np.uint8), "part": np.stack(parts)}


def recipe() -> str:
    """What decides the contents of the files, as the one line of recipe.json beside them."""
    return json.dumps({"version": VERSION, "seed": SEED, "per_class": PER_CLASS, "difficulty": DIFFICULTY})


def write_shapes(folder: Path) -> None:
    """Write the data set as `folder`, complete or not at all, also when several processes do so at once.

    Raises:
        InputError: the data root cannot be written to.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as workspace:
            built = Path(workspace) / folder.name
            built.mkdir()
            write_files(built)
            try:
                built.rename(folder)
            except OSError:
                # Another process was first; its folder is complete, and the same.
                if not (folder / "recipe.json").is_file():
                    raise
    except OSError as error:
        raise InputError(
            f"Shapes cannot be written to {folder.parent} ({error}); choose another --data-root."
        ) from error


def write_files(folder: Path) -> None:
    for split in PER_CLASS:
        with h5py.File(folder / f"ply_data_{split}0.h5", "w", locking=False) as file:
            for name, array in generate(split).items():
                file.create_dataset(name, data=array)
        (folder / f"{split}_files.txt").write_text(f"ply_data_{split}0.h5\n")
    (folder / "shape_names.txt").write_text("\n".join(CLASSES) + "\n")
    (folder / "part_names.txt").write_text("\n".join(PART_NAMES) + "\n")
    (folder / "recipe.json").write_text(recipe() + "\n")


class Shapes(HDF5Clouds):
    """1,600 training and 400 test clouds of 16 classes, written into the data root on first use.

    Takes the arguments of `HDF5Clouds`. The files also hold `part` uint8 (n, 2048), see `part_names.txt`.
    """

    folder = "shapes" + LAYOUT_SUFFIX

    @classmethod
    def locate(cls, root: str | Path) -> Path:
        """The folder at or under `root`, written now if there is none."""
        folder = cls.find(root)
        if folder is None:
            root = Path(root).expanduser()
            folder = root if root.name == cls.folder else root / cls.folder
            write_shapes(folder)
        written = folder / "recipe.json"
        if not written.is_file() or read_lines(written) != [recipe()]:
            raise InputError(f"{folder} was not written by this version of Shapes; delete it and it is generated anew.")
        return folder
