"""What is said of a data set before hours go into it: how far a classical method comes, and how its shapes stand."""

from collections import Counter
from pathlib import Path

from dgcnn_ws.datasets.hdf5 import fewest_points, list_files
from dgcnn_ws.datasets.looking.baseline import baseline_accuracy, baseline_words, some_clouds
from dgcnn_ws.datasets.looking.headings import Rotation, rotate_for
from dgcnn_ws.datasets.modelnet import LabelledClouds
from dgcnn_ws.datasets.stream import StreamedClouds
from dgcnn_ws.errors import InputError

MOST_POINTS = 1024  # of each cloud
UNEVEN = 10  # times as many clouds in one class as in another
HEADINGS = {
    "none": "the shapes of a class face one way: --rotate none, where new ones will face that way too",
    "up": "the shapes of a class do not all face one way, or are too few to tell: --rotate up",
    "any": "the shapes of a class stand on any side: --rotate any",
}


def first_look(folder: Path) -> list[str]:
    """Return a few lines on a layout folder. Its clouds are read as they are used: it may be of any size."""
    try:
        train, val = (read_split(folder, split) for split in ("train", "val"))
        baseline = baseline_words(baseline_accuracy(train, val), len(val), "val")
        return [baseline, HEADINGS[suited_rotation(train)], *uneven(train)]
    except InputError as error:
        return [f"no classical baseline: {error}"]


def uneven(train: LabelledClouds) -> list[str]:
    """Return a line where a class has many times the clouds of another, else none."""
    counts = Counter(train.labels.tolist()).most_common()  # those of which there is a cloud
    (_, most), (_, fewest) = counts[0], counts[-1]
    if most < UNEVEN * fewest:
        return []
    of_each = ", ".join(f"{count} of {train.class_names[label]}" for label, count in (counts[0], counts[-1]))
    return [f"the classes are uneven ({of_each}): --class-weights balanced lets each count alike"]


def read_split(folder: Path, split: str) -> StreamedClouds:
    """Return a split of a layout folder with up to `MOST_POINTS` of the points that every cloud has."""
    return StreamedClouds(folder, split, min(fewest_points(list_files(folder, "train")), MOST_POINTS))


def suited_rotation(train: LabelledClouds) -> Rotation:
    """Return what `--rotate` suits the clouds, see `rotate_for`."""
    return rotate_for(*some_clouds(train, train.num_points))
