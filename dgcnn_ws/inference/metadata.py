"""What an exported file says of itself: enough to feed it, and to read its answers, without this package."""

from dataclasses import asdict
from typing import Any

from dgcnn_ws import __version__
from dgcnn_ws.datasets.frame import Frame
from dgcnn_ws.engine.recipe import Recipe

DRAWN = {
    "contents": "numpy.random.default_rng([seed, *hashlib.blake2b(coordinates as little-endian float64, "
    "digest_size=32).digest()]).permutation(their number), or any other random choice",
    "seed": "a random choice, which the seed decides",
    "stored": "those of a data set from elsewhere, whose choice is not known; else a random choice",
}
FILLED = {
    "repeat": "a cloud of fewer points has them repeated in turn until there are {0}",
    "none": "a cloud of fewer points stays as small as it is",
}
ROWS = {
    "normals": "the unit normal's x, y, z",
    "colour": "red, green, blue from 0 to 1",
    "intensity": "intensity, from 0 to 1 where files hold whole numbers",
}
SIZED = {
    "unit_sphere": "subtract the mean of these points, then divide by the largest distance of a point from the origin",
    "none": "keep the coordinates as they are: training did not normalise them",
}


def describe(
    recipe: Recipe, frame: Frame, class_names: list[str], part_names: list[str], temperature: float
) -> dict[str, Any]:
    """Return JSON-ready metadata of a network's file.

    Args:
        recipe: that trained it.
        frame: how shapes became its training clouds.
        class_names: in the order of the outputs, or for parts of the input `category`.
        part_names: in the order of the outputs; empty for a classifier.
        temperature: of its probabilities.
    """
    segments = recipe.task == "segment"
    outputs = "(batch, parts, points)" if segments else "(batch, classes)"
    return {
        "metadata_version": 2,
        "task": recipe.task,
        "class_names": class_names,
        "part_names": part_names,
        "input": f"points (batch, {frame.width}, points) float32: rows x, y (up), z"
        + "".join(f", {ROWS[feature]}" for feature in frame.features)
        + ", prepared by the steps of `preparation`"
        + ("; category (batch,) int64: index into class_names" if segments else ""),
        "output": f"logits {outputs} float32, in the order of {'part_names' if segments else 'class_names'}",
        "probabilities": "softmax over axis 1 of logits / temperature",
        "temperature": temperature,
        "preparation": steps(recipe, frame),
        "frame": asdict(frame) | {"axes": list(frame.axes)},
        "num_points": recipe.num_points,
        "least_points": recipe.k,
        "k": recipe.k,
        "norm": recipe.norm,
        "made_by": f"dgcnn_ws {__version__}",
    }


def steps(recipe: Recipe, frame: Frame) -> list[str]:
    """Return what is done to a shape, in order, in sentences."""
    count = max(frame.num_points, recipe.num_points)
    x, y, z = frame.axes
    mirror = "a mirror image, as the published ModelNet40 is" if frame.mirrored else "a rotation"
    turned = f"take ({x}, {y}, {z}) of the file as (x, y, z), which is {mirror}; {frame.up} is up in the file, y now"
    return [
        f"draw {count} points: of a surface evenly by area, of a cloud {DRAWN[frame.draw]}; "
        + FILLED[frame.fill].format(count),
        SIZED[frame.normalization],
        (turned if frame.axes != ("x", "y", "z") else "keep the axes: y is up in the file")
        + "; of normals too" * ("normals" in frame.features),
        f"keep the first {recipe.num_points} points" if recipe.num_points < count else "keep all points",
    ]
