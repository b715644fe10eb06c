"""What a caller of the public functions may rely on: shapes, invariances, and errors that say the way out."""

import pytest
import torch

from dgcnn_ws.errors import InputError
from dgcnn_ws.ops import check_graph, column_moments, edge_aggregate, kernels, knn, mean_act, scale_shift_act

choices = pytest.mark.parametrize("choice", ["auto", "torch"])


@choices
def test_neighbours_follow_a_permutation_of_the_points(choice):
    x = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(50)
    with kernels(choice):
        idx, permuted = knn(x, 6), knn(x[:, order], 6)
    assert torch.equal(order[permuted].sort().values, idx[:, order].sort().values)


@choices
def test_a_point_is_its_own_neighbour(choice):
    with kernels(choice):
        assert (knn(torch.randn(2, 200, 3), 5) == torch.arange(200)[None, :, None]).any(-1).all()


@choices
def test_knn_is_not_differentiable_and_an_empty_batch_is_legal(choice):
    with kernels(choice):
        assert not knn(torch.randn(1, 4, 3, requires_grad=True), 2).requires_grad
        assert knn(torch.randn(0, 4, 3), 2).shape == (0, 4, 2)


@choices
def test_int32_graphs_and_bool_signs_mean_the_same(choice):
    ab, idx, sign = torch.randn(2, 9, 6), torch.randint(0, 9, (2, 9, 3)), torch.tensor([1.0, -1.0, 0.0])
    with kernels(choice):
        expected = edge_aggregate(ab, idx, sign)
        torch.testing.assert_close(edge_aggregate(ab, idx.int(), sign > 0), expected)


@choices
def test_more_than_256_neighbours_have_a_wider_slot_number(choice):
    ab = torch.zeros(1, 400, 2)
    ab[0, 399, 0] = 1
    ab.requires_grad_()
    with kernels(choice):
        edge_aggregate(ab, torch.arange(400).expand(1, 400, 400), torch.ones(1))[0].sum().backward()
    assert ab.grad[0, 399, 0] == 400 and ab.grad[0, :399, 0].abs().max() == 0


x, idx, sign, factor = (
    torch.zeros(2, 5, 4),
    torch.zeros(2, 5, 3, dtype=torch.int64),
    torch.ones(2),
    torch.ones(2, 4),
)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: knn(x, 20),
            "k=20 neighbours need at least 20 points; this cloud has 5. Lower k or use more points.",
        ),
        (lambda: knn(x, 0), "k=0"),
        (lambda: knn(x[0], 1), r"shape \(5, 4\)"),
        (lambda: knn(x.long(), 1), "int64"),
        (lambda: knn(x.cfloat(), 1), "complex64"),
        (lambda: knn(x[:, :0], 1), "without points"),
        (lambda: edge_aggregate(x[..., :3], idx, sign), "3 channels cannot be halved"),
        (lambda: edge_aggregate(x, idx[:, :4], sign), "differ in clouds or points"),
        (lambda: edge_aggregate(x, idx[..., :0], sign), "k >= 1"),
        (lambda: edge_aggregate(x, idx.float(), sign), "int64 or int32"),
        (lambda: edge_aggregate(x, idx, torch.ones(3)), r"shape \(3,\)"),
        (lambda: column_moments(x, sign), r"\(4,\)"),
        (lambda: scale_shift_act(x, factor[0], factor, 0.2), "scale has shape"),
        (lambda: mean_act(x, factor, factor.long(), 0.2), "shift is torch.int64"),
        (lambda: mean_act(x, factor, factor, -0.1), "negative_slope=-0.1"),
        (lambda: check_graph(idx - 1, len(idx), 5), "points to -1"),
        (lambda: check_graph(idx + 5, len(idx), 5), "points to 5"),
        (lambda: check_graph(idx, len(idx), 6), "clouds of 5 points; it is used with"),
        (lambda: check_graph(idx, 9, 5), "used with 9 of 5"),
    ],
)
def test_errors_name_the_thing_and_the_value(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_a_sound_graph_passes():
    check_graph(torch.randint(0, 5, (2, 5, 3)), 2, 5)
    check_graph(idx[:0], 0, 5)


@pytest.mark.parametrize("k, dilation", [(1, 3), (4, 1), (4, 2), (3, 5)])
def test_dilated_neighbours_are_those_of_every_dth_rank(k: int, dilation: int) -> None:
    x = torch.randn(2, 11, 3, dtype=torch.float64)
    ranked = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").argsort(2)
    expected = ranked[..., : (k - 1) * dilation + 1 : dilation]
    assert torch.equal(knn(x, k, dilation).sort(2).values, expected.sort(2).values)


def test_wrong_dilations_are_refused() -> None:
    with pytest.raises(InputError, match="dilation=0"):
        knn(torch.zeros(1, 4, 3), 2, 0)
    with pytest.raises(InputError, match="k=3 neighbours at dilation 2 need at least 5 points; this cloud has 4"):
        knn(torch.zeros(1, 4, 3), 3, 2)
