"""What a point has beside its coordinates, found among a file's columns by name."""

from collections.abc import Mapping, Sequence

import numpy as np

from dgcnn_ws.datasets.frame import width_of

# Each feature's columns as programs call them.
NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "normals": (("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"), ("normalx", "normaly", "normalz")),
    "colour": (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")),
    "intensity": (("intensity",), ("scalar_intensity",), ("i",), ("reflectance",)),
}
UNIT_WITHIN = 0.05  # of normals written with two decimals


def with_features(points: np.ndarray, columns: Mapping[str, np.ndarray], features: Sequence[str]) -> np.ndarray:
    """Return points (N, 3 + D) with features out of named columns (N,) each, whatever the case of their names.

    Colours come from 0 to 1, as do intensities in whole numbers, of which the type's largest is 1.

    Raises ValueError where the columns of one are missing, or hold what it cannot be.
    """
    known = {name.lower(): column for name, column in columns.items()}
    parts = [points]
    for feature in features:
        names = next((names for names in NAMES[feature] if set(names) <= known.keys()), None)
        if names is None:
            raise ValueError(f"it has no {feature}: no columns {', '.join(NAMES[feature][0])} beside x, y and z")
        values = np.stack([known[name] for name in names], axis=1)
        parts.append(scaled(values, feature))
    return np.concatenate(parts, axis=1).astype(np.float64)


def scaled(values: np.ndarray, feature: str) -> np.ndarray:
    """Return a feature's values (N, D) float64 in the range that networks see; ValueError where it cannot be these."""
    if feature == "normals":
        if len(values) and not values.any():
            raise ValueError("its normals are all zero")
        return values.astype(np.float64)
    if feature == "colour" and (values.min(initial=0) < 0 or values.max(initial=0) > 65535):
        raise ValueError(f"its colours go from {values.min():.6g} to {values.max():.6g}, not from 0 to 1 or to 255")
    largest = 1.0
    if values.dtype.kind in "iu":
        largest = float(np.iinfo(values.dtype).max)
    if feature == "colour" and (values.dtype.kind == "f" or values.dtype.itemsize > 1):
        # Numbers of text, and scanners' 16 bits, may hold a byte's: the files' largest tells.
        most = values.max(initial=0)
        largest = 1.0 if most <= 1 else 255.0 if most <= 255 else 65535.0
    return values.astype(np.float64) / largest


def of_columns(table: np.ndarray, features: Sequence[str]) -> np.ndarray:
    """Return points (N, 3 + D) of nameless columns, which hold exactly coordinates and then the features, in order."""
    wanted = 3 + width_of(features)
    if table.shape[1] != wanted:
        raise ValueError(
            f"it has {table.shape[1]} nameless columns, where coordinates and {' and '.join(features)} are {wanted}; "
            "name them x, y, z, nx, ny, nz, red, green, blue, intensity"
        )
    parts, at = [table[:, :3].astype(np.float64)], 3
    for feature in features:
        width = width_of([feature])
        values = table[:, at : at + width]
        if feature == "normals" and not are_unit(values):
            raise ValueError(
                f"its nameless columns {at + 1} to {at + width} are no normals, which have length 1; name the columns"
            )
        parts.append(scaled(values, feature))
        at += width
    return np.concatenate(parts, axis=1)


def are_unit(vectors: np.ndarray) -> bool:
    """Whether vectors (N, 3) have length 1, as far as rounding goes, where a scanner has any (not NaN or zeros)."""
    lengths = np.linalg.norm(vectors, axis=1)
    return bool((np.abs(lengths[lengths > 0] - 1) < UNIT_WITHIN).all())
