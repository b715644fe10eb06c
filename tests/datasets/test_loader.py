"""The loader: every cloud once, an order that depends on (seed, epoch) alone, and resumption anywhere."""

import pytest
import torch

from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.datasets.modelnet import PointClouds
from dgcnn_ws.errors import InputError


def clouds(count: int = 10) -> PointClouds:
    """Cloud i holds the number i everywhere and has label i."""
    index = torch.arange(count)
    return PointClouds(index.float().view(-1, 1, 1).expand(-1, 4, 3), index, [str(i) for i in range(count)])


def labels(batches: object) -> list[list[int]]:
    return [batch.tolist() for _, batch in batches]  # type: ignore[attr-defined]


def flat(batches: object) -> list[int]:
    return [label for batch in labels(batches) for label in batch]


def test_without_shuffle_stored_order_and_a_smaller_last_batch() -> None:
    loader = Loader(clouds(), 4)
    assert labels(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(loader) == 3
    assert labels(loader.epoch(5)) == labels(loader)


def test_points_stay_with_their_labels() -> None:
    for points, batch in Loader(clouds(), 3, shuffle=True):
        assert points.shape == (len(batch), 4, 3)
        assert torch.equal(points, batch.float().view(-1, 1, 1).expand(-1, 4, 3))


@pytest.mark.parametrize(("count", "size", "batches"), [(10, 3, 3), (9, 3, 3), (3, 3, 1)])
def test_drop_last(count: int, size: int, batches: int) -> None:
    loader = Loader(clouds(count), size, shuffle=True, drop_last=True)
    assert len(loader) == batches
    assert [len(batch) for batch in labels(loader)] == [size] * batches


def test_shuffle_visits_every_cloud_once_in_an_order_of_its_own_each_epoch() -> None:
    loader = Loader(clouds(100), 7, shuffle=True)
    orders = [flat(loader.epoch(epoch)) for epoch in range(5)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5


def test_order_depends_on_seed_and_epoch_alone() -> None:
    reference = flat(Loader(clouds(100), 7, shuffle=True, seed=3).epoch(4))
    torch.manual_seed(123)
    loader = Loader(clouds(100), 20, shuffle=True, seed=3)
    list(loader.epoch(1))
    assert flat(loader.epoch(4)) == reference
    assert flat(Loader(clouds(100), 7, shuffle=True, seed=4).epoch(3)) != reference


def test_orders_are_unbiased() -> None:
    loader = Loader(clouds(4), 4, shuffle=True)
    first = torch.bincount(torch.tensor([flat(loader.epoch(epoch))[0] for epoch in range(800)]), minlength=4)
    assert (first - 200).abs().max() < 5 * (800 * 0.25 * 0.75) ** 0.5


def test_drawing_an_order_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    list(Loader(clouds(), 4, shuffle=True))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("start", range(5))
def test_an_epoch_resumes_at_any_batch(start: int) -> None:
    loader = Loader(clouds(), 3, shuffle=True)
    assert labels(loader.epoch(2, start)) == labels(loader.epoch(2))[start:]


def test_a_batch_is_a_copy() -> None:
    dataset = clouds()
    points, _ = next(iter(Loader(dataset, 4)))
    points.zero_()
    assert dataset.points[3].eq(3).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 11, "drop_last": True}, "batch_size=11 is larger than the 10 clouds"),
        ({"batch_size": 4, "seed": -1}, "seed=-1"),
    ],
)
def test_bad_arguments(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Loader(clouds(), **options)  # type: ignore[arg-type]


def test_a_batch_size_beyond_the_data_set_is_one_batch() -> None:
    assert labels(Loader(clouds(3), 8)) == [[0, 1, 2]]


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, -1), (0, 4)])
def test_epochs_and_batches_that_do_not_exist(epoch: int, start: int) -> None:
    with pytest.raises(InputError):
        Loader(clouds(), 4).epoch(epoch, start)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("free", [10**12, 0])
def test_cuda_batches_are_the_same_wherever_the_clouds_lie(free: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, free))
    loader = Loader(clouds(), 4, device="cuda", shuffle=True)
    assert loader.points.is_cuda == (free > 0)
    for (points, batch), (expected, truth) in zip(loader, Loader(clouds(), 4, shuffle=True), strict=True):
        assert points.is_cuda and torch.equal(points.cpu(), expected) and torch.equal(batch.cpu(), truth)
