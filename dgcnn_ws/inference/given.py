"""What `predict` is given: files, folders, arrays, tensors, and lists of these, as shapes with names."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgcnn_ws.datasets.formats.polygons import Shape
from dgcnn_ws.datasets.frame import width_of
from dgcnn_ws.datasets.shape_file import READERS, load_shape, read_bytes
from dgcnn_ws.errors import InputError


@dataclass(frozen=True)
class Given:
    """A shape: triangles (T, 3, 3) or points (N, 3), what to call it, and the file that it is from, if any."""

    shape: Shape
    name: str
    file: Path | None = None


def is_single(inputs: Any) -> bool:
    """Whether `inputs` are one shape, so that the answer is one and no list: a file, or points (N, 3)."""
    if isinstance(inputs, str | Path):
        return not Path(inputs).is_dir()
    return isinstance(inputs, np.ndarray | Tensor) and inputs.ndim == 2


def shapes_in(inputs: Any, features: Sequence[str] = ()) -> Iterator[Given]:
    """Yield the shapes in `inputs`, in their order.

    Args:
        inputs: the path of a file or folder (whose files are read at any depth, in the order of their names), points
            (N, 3) or (B, N, 3) as an array or a tensor, or a list of any of these, of any sizes.
        features: what is wanted beside coordinates; of arrays the columns behind x, y, z.

    Raises InputError where something is none of these. A file in a folder that cannot be read is left out with a
    warning.
    """
    if isinstance(inputs, str | Path):
        yield from _files(Path(inputs), features)
    elif isinstance(inputs, np.ndarray | Tensor):
        clouds = points_of(inputs, 3 + width_of(features))
        for i, cloud in enumerate(clouds[None] if clouds.ndim == 2 else clouds):
            yield Given(cloud, "the cloud" if clouds.ndim == 2 else f"cloud {i}")
    elif isinstance(inputs, list | tuple):
        for i, part in enumerate(inputs):
            if isinstance(part, list | tuple):
                raise InputError("a list of lists is neither files nor clouds. Make each cloud an array (N, 3).")
            for given in shapes_in(part, features):
                yield given if given.file else Given(given.shape, f"cloud {i}")
    else:
        raise InputError(
            f"{type(inputs).__name__} is nothing to predict. Give the path of a file or folder, an array or tensor "
            "(N, 3) or (B, N, 3), or a list of them."
        )


def _files(path: Path, features: Sequence[str]) -> Iterator[Given]:
    if not path.is_dir():
        yield Given(load_shape(read_bytes(path), path, features), str(path), path)
        return
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in READERS)
    if not files:
        raise InputError(f"{path} holds no file that ends in {', '.join(READERS)}.")
    for file in files:
        try:
            yield Given(load_shape(read_bytes(file), file, features), str(file), file)
        except InputError as error:
            warnings.warn(f"left out: {error}", stacklevel=4)


def points_of(values: Any, width: int = 3) -> np.ndarray:
    """Return an array or tensor as points (N, width) or (B, N, width) float64; InputError where it is no such thing."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype is torch.bfloat16 else values).numpy()
    shape = values.shape
    if values.dtype.kind not in "fiu":
        raise InputError(f"points are numbers, not of type {values.dtype}.")
    if len(shape) not in (2, 3) or shape[-1] != width or not values.size:
        turned = " Channels come last here: transpose it." if len(shape) in (2, 3) and shape[-2] == width else ""
        wanted = f"a cloud is (N, {width}) and several are (B, N, {width})"
        raise InputError(f"{wanted}; this one has shape {shape}.{turned}")
    if not np.isfinite(values).all():
        raise InputError("a cloud has coordinates that are no finite numbers.")
    return np.asarray(values, np.float64)
