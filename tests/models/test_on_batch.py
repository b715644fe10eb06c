"""Whole networks on torch_geometric's batches, trained through its own loader as through ours."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import Center, Compose, NormalizeScale

from dgcnn_ws import DGCNN, DGCNNSeg
from dgcnn_ws.datasets import PartClouds, PointClouds
from dgcnn_ws.datasets.geometric import GeometricClouds
from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.errors import InputError
from dgcnn_ws.models import OnBatch

SMALL = {"k": 4, "widths": (8, 12), "emb_dims": 16, "hidden": (8,), "groups": 4, "dropout": 0.0}
SIZES = (12, 20, 12, 9)


def clouds(count: int = 10) -> PointClouds:
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(count, 24, 3, generator=generator)
    return PointClouds(points, torch.arange(count) % 3, ["ball", "cone", "cube"])


def ragged() -> list[Data]:
    generator = torch.Generator().manual_seed(1)
    return [
        Data(pos=torch.randn(size, 3, generator=generator), y=torch.tensor([i % 3])) for i, size in enumerate(SIZES)
    ]


@pytest.mark.parametrize("norm", ["ws_gn", "bn"])
def test_trains_through_torch_geometrics_loader_as_through_ours(norm: str) -> None:
    dense = DGCNN(3, norm=norm, **SMALL)
    model = OnBatch(copy.deepcopy(dense))
    for network, batches in ((dense, Loader(clouds(), 4)), (model, DataLoader(GeometricClouds(clouds()), 4))):
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        for batch in batches:
            logits, labels = (
                (network(batch), batch.y) if isinstance(batch, Batch) else (network(batch[0].transpose(1, 2)), batch[1])
            )
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    for name, value in dense.state_dict().items():
        torch.testing.assert_close(model.state_dict()[f"network.{name}"], value, rtol=0, atol=0)


@pytest.mark.parametrize("training", [True, False])
def test_clouds_of_several_sizes_are_each_as_alone(training: bool) -> None:
    torch.manual_seed(0)
    model = OnBatch(DGCNN(3, norm="ws_gn", **SMALL)).train(training)
    alone = copy.deepcopy(model)
    from dgcnn_ws.nn import one_update

    with one_update(alone):
        expected = torch.cat([alone(data) for data in ragged()])
    found = model(Batch.from_data_list(ragged()))
    torch.testing.assert_close(found, expected)
    for (name, value), other in zip(model.named_buffers(), alone.buffers(), strict=True):
        torch.testing.assert_close(value, other, msg=name)


def test_points_in_any_order_and_features() -> None:
    model = OnBatch(DGCNN(3, norm="ws_gn", in_channels=5, **SMALL)).eval()
    data = Batch.from_data_list(ragged())
    data.x = torch.randn(len(data.pos), 2)
    expected = model(data)
    mixed = torch.randperm(len(data.pos))
    torch.testing.assert_close(model(Data(pos=data.pos[mixed], x=data.x[mixed], batch=data.batch[mixed])), expected)


def test_segmentation_names_each_point() -> None:
    flat = clouds(6)
    parts = torch.randint(0, 4, flat.points.shape[:2])
    dataset = GeometricClouds(PartClouds(flat, parts, list("abcd"), torch.ones(3, 4, dtype=torch.bool)))
    model = OnBatch(
        DGCNNSeg(4, k=4, num_categories=3, widths=((8, 8), (8,)), emb_dims=16, hidden=(8,), groups=4)
    ).eval()
    batch = next(iter(DataLoader(dataset, 6)))
    logits = model(batch)
    dense = model.network(flat.points.transpose(1, 2), flat.labels)
    torch.testing.assert_close(logits, dense.transpose(1, 2).flatten(0, 1))
    assert torch.equal(batch.y, parts.flatten()) and dataset.num_classes == 4


def test_the_data_set_is_torch_geometrics() -> None:
    source = clouds()
    dataset = GeometricClouds(source, transform=Compose([Center(), NormalizeScale()]))
    before = source.points.clone()
    data = dataset[3]
    assert len(dataset) == 10 and dataset.num_classes == 3 and data.y.shape == (1,)
    torch.testing.assert_close(data.pos.abs().max(), torch.tensor(1.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(data.pos.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert torch.equal(source.points, before)
    assert [int(part.y) for part in dataset[[2, 4]]] == [2, 1]
    assert len(dataset[:4].shuffle()) == 4


def test_wrong_data() -> None:
    model = OnBatch(DGCNN(3, norm="bn", **SMALL))
    with pytest.raises(InputError, match="cannot train on clouds of several sizes"):
        model(Batch.from_data_list(ragged()))
    assert model.eval()(Batch.from_data_list(ragged())).shape == (4, 3)
    with pytest.raises(InputError, match="no pos"):
        model(Data(x=torch.randn(5, 3)))


def test_is_a_module_like_others() -> None:
    model = OnBatch(DGCNN(3, **SMALL))
    assert all(name.startswith("network.") for name in model.state_dict())
    assert isinstance(model, nn.Module) and isinstance(model(Data(pos=torch.randn(9, 3))), Tensor)
