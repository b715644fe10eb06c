"""Our data sets as torch_geometric's, for its transforms, samplers and DataLoader. Needs torch_geometric."""

from collections.abc import Callable
from typing import Any

from torch_geometric.data import Data, Dataset

from dgcnn_ws.datasets.modelnet import PointClouds
from dgcnn_ws.datasets.parts import PartClouds


class GeometricClouds(Dataset):
    """A split as a torch_geometric data set of `Data`.

        clouds = GeometricClouds(load_dataset("modelnet40"), transform=NormalizeScale())
        loader = torch_geometric.loader.DataLoader(clouds, batch_size=8, shuffle=True)

    Of each cloud: `pos` (N, 3), where it has features `x` (N, D), and `y` (1,), its class; of clouds with parts,
    `y` (N,), the part of each point, and `category` (1,). `models.OnBatch` makes a network of them.

    Args:
        clouds: of `load_dataset` or `load_parts`, in memory.
        transform: of torch_geometric, applied each time a cloud is read.
    """

    def __init__(self, clouds: PointClouds, transform: Callable[[Data], Data] | None = None) -> None:
        super().__init__(None, transform)
        self.clouds, self.class_names = clouds, clouds.class_names

    @property
    def num_classes(self) -> int:
        """Classes of `y`: categories, or parts."""
        parts = self.clouds.part_names if isinstance(self.clouds, PartClouds) else None
        return len(self.class_names if parts is None else parts)

    def len(self) -> int:
        return len(self.clouds)

    def get(self, idx: int) -> Data:
        points = self.clouds.points[idx].clone()  # a transform may change it in place
        fields: dict[str, Any] = {"pos": points[:, :3].contiguous()}
        if self.clouds.features:
            fields["x"] = points[:, 3:].contiguous()
        label = self.clouds.labels[idx : idx + 1]
        if isinstance(self.clouds, PartClouds):
            return Data(**fields, y=self.clouds.parts[idx], category=label)
        return Data(**fields, y=label)
