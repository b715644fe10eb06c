"""How shapes in files became a data set's clouds: `prepare` writes it, checkpoints carry it, `predict` repeats it."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dgcnn_ws.errors import InputError

AXES = ("z", "y")
UNIT_SPHERE = "unit_sphere"  # zero mean, the farthest point at distance 1
MAX_POINTS = 1 << 20
MAX_JSON_BYTES = 1 << 26  # prepare.json names every file that could not be read


@dataclass(frozen=True)
class Frame:
    """The way from files to clouds.

    Args:
        up: the axis that points up in the files, `z` or `y`; in the clouds it is y.
        num_points: points that a cloud was normalised over, of which a network may see the first only.
        normalization: `unit_sphere`, the only one there is.
    """

    up: str = "z"
    num_points: int = 2048
    normalization: str = UNIT_SPHERE


def frame_of(values: Any, source: Path) -> Frame:
    """Return the frame that `values`, found in `source`, describe; nothing about them is trusted.

    Raises InputError, which names `source`, where something is missing, of another type or unknown.
    """
    values = {"normalization": UNIT_SPHERE} | values if isinstance(values, dict) else {}
    up, num_points, normalization = (values.get(field.name) for field in fields(Frame))
    wrong = {
        f"up {' or '.join(AXES)}": type(up) is not str or up not in AXES,
        f"num_points from 1 to {MAX_POINTS}": type(num_points) is not int or not 1 <= num_points <= MAX_POINTS,
        f"normalization {UNIT_SPHERE}": type(normalization) is not str or normalization != UNIT_SPHERE,
    }
    if any(wrong.values()):
        expected = next(name for name, is_wrong in wrong.items() if is_wrong)
        raise InputError(f"{source} is damaged, or too new: of how its data were prepared it should say {expected}.")
    return Frame(up, num_points, normalization)


def read_frame(folder: Path) -> Frame | None:
    """Return the frame of a folder that `prepare` wrote; None for a data set from elsewhere, whose files are unknown.

    Raises InputError where `prepare.json` is damaged.
    """
    path = folder / "prepare.json"
    if not path.is_file():
        return None
    try:
        with open(path, "rb") as file:
            content = json.loads(file.read(MAX_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged: it is not valid JSON. Delete it, or prepare the data set again."
        ) from error
    return frame_of(content.get("settings") if isinstance(content, dict) else None, path)
