"""How shapes become a network's clouds: `prepare` writes it, data sets and checkpoints carry it, `predict` repeats it.

A shape's points are drawn, brought to size, turned and filled up, in this order (`network_input.py` does it). The same
frame and the same shape give the same numbers, wherever they are made.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from dgcnn_ws.errors import InputError

AXES = ("z", "y")
STORED = "stored"
UPS = (*AXES, STORED)  # what can be said of files
NORMALIZATIONS = ("unit_sphere", "none")
DRAWS = ("contents", "seed", "stored")
FILLS = ("repeat", "none")
CHANNELS = "xyz"  # of a point's coordinates, which come first
FEATURES = {"normals": 3, "colour": 3, "intensity": 1}  # what a point may have besides, in this order: channels
MAX_POINTS = 1 << 20
MAX_SEED = 1 << 63
MAX_JSON_BYTES = 1 << 26  # prepare.json names every file that could not be read


def check_axis(up: str, known: tuple[str, ...] = AXES) -> None:
    """Raise InputError where `up` is no axis that may point up in a file."""
    if up not in known:
        raise InputError(f"--up {up!r} is unknown. Choose one of {', '.join(known)}.")


@dataclass(frozen=True)
class Frame:
    """The way from a shape to a cloud.

    Args:
        up: the axis that points up in the files, `z` or `y`; in the clouds it is y.
        num_points: points that are drawn from a shape, and that it is normalised over, of which a network may see the
            first only.
        normalization: `unit_sphere`: zero mean, the farthest point at distance 1; `none`: as the file has it.
        mirrored: whether the clouds are mirror images of the files, with (x, z, y) of z-up files where a turn gives
            (x, z, -y). The published ModelNet40 is.
        fill: what is done to a cloud of fewer points than `num_points`. `repeat`: all of its points, over and over,
            until there are enough; `none`: it stays as small as it is.
        draw: which points are taken. `contents`: a random choice that the shape itself and the seed decide, so that
            the same shape gives the same points everywhere; `seed`: one that the seed alone decides, as until version
            0.1; `stored`: as `contents`, but a cloud of exactly `num_points` keeps its points in their order, as one
            of a data set whose making is not known.
        seed: of that choice.
        channels: what a point has, `xyz` and after a comma each what else of `FEATURES`: unit normals, turned as the
            points are; colours red, green, blue from 0 to 1; an intensity, from 0 to 1 where files hold whole numbers.
        radius: the smallest and the largest distance of a training cloud's farthest point from the origin, where
            clouds are not normalised.
    """

    up: str = "z"
    num_points: int = 2048
    normalization: str = "unit_sphere"
    mirrored: bool = False
    fill: str = "none"
    draw: str = "seed"
    seed: int = 0
    channels: str = CHANNELS
    radius: tuple[float, float] | None = None

    @property
    def axes(self) -> tuple[str, str, str]:
        """What of a file's axes the cloud's x, y and z are."""
        if self.up == "z":
            return ("x", "z", "y" if self.mirrored else "-y")
        return ("x", "y", "-z" if self.mirrored else "z")

    @property
    def features(self) -> tuple[str, ...]:
        """What a point has beside its coordinates."""
        return tuple(self.channels.split(",")[1:])

    @property
    def width(self) -> int:
        """Channels of a point."""
        return 3 + width_of(self.features)

    def says(self) -> str:
        """Return how files are read, in a few words."""
        words = [f"files read with {self.up} up"]
        words += ["mirrored, as the training clouds are"] * self.mirrored
        words += ["not normalised, as the training clouds are not"] * (self.normalization == "none")
        words += [f"points with {' and '.join(self.features)}"] * bool(self.features)
        return ", ".join(words)


def features_in(words: str, flag: str = "--features") -> tuple[str, ...]:
    """Return the features that `words` names, between commas, in the order of `FEATURES`; InputError for others."""
    named = [word.strip() for word in words.split(",") if word.strip()]
    for word in named:
        if word not in FEATURES:
            raise InputError(f"{flag} {word!r} is unknown. Choose some of {', '.join(FEATURES)}.")
    return tuple(name for name in FEATURES if name in named)


def width_of(features: Sequence[str]) -> int:
    """Return how many channels features have together."""
    return sum(FEATURES[name] for name in features)


def channels_of(features: Sequence[str]) -> str:
    """Return what a frame calls the channels of points with these features."""
    return ",".join((CHANNELS, *features))


# As PointNet's authors made it of Princeton's meshes: y and z exchanged, which is a mirror image. Nobody knows which
# points they drew, so of other files than theirs the choice is ours.
PUBLISHED_MODELNET40 = Frame("z", 2048, "unit_sphere", mirrored=True, draw="stored")


def as_stored(frame: Frame) -> Frame:
    """Return the frame of files that hold a data set's own clouds: nothing is turned, mirrored or normalised."""
    return replace(frame, up="y", mirrored=False, normalization="none", draw="stored", radius=None)


def with_up(frame: Frame, up: str) -> Frame:
    """Return the frame of files in which another axis points up, or (`stored`) that hold a data set's own clouds.

    Raises InputError where `up` is none of `UPS`.
    """
    check_axis(up, UPS)
    return as_stored(frame) if up == STORED else replace(frame, up=up)


def frame_of(values: Any, source: Path) -> Frame:
    """Return the frame that `values`, found in `source`, describe; nothing about them is trusted.

    What version 0.1 did not write has the value that it had then: clouds were filled up by repetition, none was
    mirrored.

    Raises InputError, which names `source`, where something is missing, of another type or unknown.
    """
    values = BEFORE | values if isinstance(values, dict) else {}
    given = {field.name: values.get(field.name) for field in fields(Frame)}
    if isinstance(given["radius"], list):  # as JSON has tuples
        given["radius"] = tuple(given["radius"])
    frame = Frame(**given)
    for expected, is_right in (
        (f"up {' or '.join(AXES)}", _is_word(frame.up, AXES)),
        (f"num_points from 1 to {MAX_POINTS}", type(frame.num_points) is int and 1 <= frame.num_points <= MAX_POINTS),
        (f"normalization {' or '.join(NORMALIZATIONS)}", _is_word(frame.normalization, NORMALIZATIONS)),
        ("mirrored true or false", type(frame.mirrored) is bool),
        (f"fill {' or '.join(FILLS)}", _is_word(frame.fill, FILLS)),
        (f"draw {' or '.join(DRAWS)}", _is_word(frame.draw, DRAWS)),
        ("seed from 0", type(frame.seed) is int and 0 <= frame.seed < MAX_SEED),
        (f"channels {CHANNELS}, maybe with some of {', '.join(FEATURES)}", _are_channels(frame.channels)),
        ("radius: the smallest and the largest", frame.radius is None or _is_range(frame.radius)),
    ):
        if not is_right:
            raise InputError(f"{source} is damaged, or too new: of how its data were made it should say {expected}.")
    return frame


# What clouds had before anything said so.
BEFORE = {"normalization": "unit_sphere", "mirrored": False, "fill": "repeat", "draw": "seed", "seed": 0}
BEFORE |= {"channels": CHANNELS, "radius": None}


def _is_word(value: Any, words: tuple[str, ...]) -> bool:
    return type(value) is str and value in words


def _are_channels(value: Any) -> bool:
    return type(value) is str and value == channels_of([name for name in FEATURES if name in value.split(",")])


def _is_range(value: Any) -> bool:
    numbers = type(value) is tuple and len(value) == 2 and all(type(number) is float for number in value)
    return numbers and 0 <= value[0] <= value[1] < float("inf")


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


NORMALIZED_WITHIN = 0.01  # as means and radii of clouds that were normalised over more points than are stored


def frame_of_clouds(clouds: np.ndarray, mirrored: bool) -> Frame:
    """Return the frame of a data set from elsewhere, by some of its clouds as they are stored, (n, num_points, 3).

    Whether they are normalised is measured. That z is up in their files is what is usual.
    """
    clouds = clouds.astype(np.float64)
    offsets = np.linalg.norm(clouds.mean(1), axis=1)
    radii = np.linalg.norm(clouds, axis=2).max(1)
    frame = Frame(num_points=clouds.shape[1], mirrored=mirrored, draw="stored")
    if max(offsets.max(), np.abs(radii - 1).max()) <= NORMALIZED_WITHIN:
        return frame
    radius = (float(radii.min()), float(radii.max()))
    return replace(frame, normalization="none", radius=radius if np.isfinite(radius).all() else None)
