"""Clouds that a program hands over: any data set of (points, label), its clouds of any sizes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dgcnn_ws.datasets.frame import Frame, channels_of
from dgcnn_ws.datasets.hdf5 import can_name_classes
from dgcnn_ws.datasets.modelnet import LabelledClouds, PointClouds, validation_mask
from dgcnn_ws.datasets.network_input import network_input
from dgcnn_ws.errors import InputError

# Nothing is turned or normalised: the network sees what the program gives.
FRAME = Frame(up="y", normalization="none", fill="repeat", draw="stored")


def clouds_of(
    dataset: Any,
    num_points: int,
    split: str = "train",
    class_names: Sequence[str] | None = None,
    features: tuple[str, ...] = (),
) -> Any:
    """Return the clouds of a data set in memory, each brought to `num_points` points.

    Of a larger cloud so many points are drawn (which ones, the cloud itself decides), a smaller one is filled up with
    its own, over and over. `LabelledClouds` of this size stay what they are.

    Args:
        dataset: has a length, and at each index points (N, 3 or more), an array or a tensor of which the first three
            columns count, and those of the features behind them, and a label from 0.
        split: what to call it in messages.
        class_names: one a class. Default: the data set's `class_names` or `classes`, else the labels' numbers.
        features: what the further columns are, some of `frame.FEATURES` in their order.

    Raises InputError, which names the first such cloud, where an item is no labelled cloud, or a label has no name.
    """
    ours = isinstance(dataset, LabelledClouds) and dataset.features == features
    if ours and dataset.num_points == num_points and class_names is None:
        return dataset
    frame = replace(FRAME, num_points=num_points, channels=channels_of(features))
    points, labels = [], []
    for index in range(len(dataset)):
        where = f"{split}[{index}]"
        cloud, label = as_cloud(dataset[index], where, frame.width)
        points.append(network_input(cloud, frame, num_points, where))
        labels.append(label)
    if not points:
        raise InputError(f"{split} holds no clouds.")
    if class_names is None:
        class_names = getattr(dataset, "class_names", None) or getattr(dataset, "classes", None)
    names = [str(name) for name in class_names or range(max(labels) + 1)]
    if not can_name_classes(names):
        raise InputError("class_names must be distinct printable words, one a class.")
    if max(labels) >= len(names):
        index = next(i for i, label in enumerate(labels) if label >= len(names))
        raise InputError(f"{split}[{index}] has the label {labels[index]}, and there are {len(names)} class names.")
    clouds = PointClouds(torch.from_numpy(np.stack(points)), torch.tensor(labels), names, split, features)
    farthest = clouds.points[:, :, :3].square().sum(2).amax(1).sqrt()
    clouds.frame = replace(frame, radius=(float(farthest.min()), float(farthest.max())))
    return clouds


def as_cloud(item: Any, where: str, width: int = 3) -> tuple[np.ndarray, int]:
    """Return the points (N, width) float64 and the label of a data set's item; InputError where it is neither."""
    try:
        points, label = item
        points, label = np.asarray(torch.as_tensor(points).cpu()), np.asarray(torch.as_tensor(label).cpu())
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{where} is not a pair of points and a label.") from error
    if points.ndim != 2 or points.shape[1] < width or len(points) == 0:
        raise InputError(f"{where} has points of shape {points.shape}, where a cloud is (N, {width}).")
    points = points[:, :width].astype(np.float64)
    if not np.isfinite(points).all():
        raise InputError(f"{where} has coordinates that are not finite.")
    if label.size != 1 or label.dtype.kind not in "iu" or label.item() < 0:
        raise InputError(f"{where} has the label {label.tolist()}, where a label is a whole number from 0.")
    return points, int(label.item())


def hold_out(clouds: LabelledClouds) -> tuple[PointClouds, PointClouds]:
    """Return training and validation clouds: a stratified tenth of `clouds`, the same as of a data set in files."""
    mask = torch.from_numpy(validation_mask(clouds.labels.numpy(), 0.1, 0))
    return subset(clouds, ~mask, "train"), subset(clouds, mask, "val")


def join(one: LabelledClouds, other: LabelledClouds, split: str) -> PointClouds:
    """Return the clouds of both."""
    points = torch.cat([all_points(one), all_points(other)])
    joined = PointClouds(points, torch.cat([one.labels, other.labels]), one.class_names, split, one.features)
    joined.frame = one.frame
    return joined


def subset(clouds: LabelledClouds, mask: torch.Tensor, split: str) -> PointClouds:
    part = PointClouds(all_points(clouds)[mask], clouds.labels[mask], clouds.class_names, split, clouds.features)
    part.frame = clouds.frame
    return part


def all_points(clouds: LabelledClouds) -> torch.Tensor:
    (points,) = clouds.read([torch.arange(len(clouds))])
    return points
