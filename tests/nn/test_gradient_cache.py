"""A batch in parts, whose loss needs it whole, has the gradients of the batch at once."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws import DGCNN
from dgcnn_ws.nn import cached_backward, one_update

SMALL: dict[str, Any] = {"k": 4, "widths": (8, 12), "emb_dims": 16, "hidden": (8, 6), "groups": 4, "dropout": 0.0}
LABELS = torch.tensor([0, 2, 1, 1, 0, 2])


def network(norm: str, **change: Any) -> DGCNN:
    torch.manual_seed(3)
    model = DGCNN(3, norm=norm, head_norm="bn", **SMALL | change).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)  # scales of both signs
    return model


def loss_of(logits: Tensor) -> Tensor:
    return F.cross_entropy(logits, LABELS)


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for (name, value), (_, expected) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert (value.grad is None) == (expected.grad is None), name
        if expected.grad is not None:
            torch.testing.assert_close(value.grad, expected.grad, msg=lambda text, name=name: f"{name}: {text}")
    for (name, value), (_, expected) in zip(one.named_buffers(), other.named_buffers(), strict=True):
        torch.testing.assert_close(value, expected, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("norm", ["gn", "ws_gn", "ws_bcn"])
@pytest.mark.parametrize("sizes", [[1] * 6, [2, 4], [5, 1], [6]])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_gradients_and_buffers_are_those_of_the_whole_batch(norm: str, sizes: list[int], backend: str) -> None:
    whole = network(norm, backend=backend)
    parted, clouds = copy.deepcopy(whole), torch.randn(6, 3, 16, dtype=torch.float64)
    with one_update(whole):
        loss_of(whole(clouds)).backward()
    with one_update(parted):
        cached_backward(parted.pool, clouds.split(sizes), lambda x: loss_of(parted.head(x)).backward(), parted)
    assert_same(parted, whole)


def test_gradients_add_to_those_that_are_there_and_a_batch_norm_in_the_body_counts_each_part_once() -> None:
    model, clouds = network("bn"), torch.randn(6, 3, 16, dtype=torch.float64)
    twice = copy.deepcopy(model)
    cached_backward(model.pool, clouds.split(2), lambda x: loss_of(model.head(x)).backward(), model)
    assert {int(value) for name, value in model.named_buffers() if "num_batches" in name} == {1, 3}  # head, body
    for _ in range(2):
        cached_backward(twice.pool, clouds.split(2), lambda x: loss_of(twice.head(x)).backward(), twice)
    for once, doubled in zip(model.parameters(), twice.parameters(), strict=True):
        assert once.grad is not None and doubled.grad is not None
        torch.testing.assert_close(doubled.grad, 2 * once.grad)


def test_a_frozen_body_gets_no_gradient() -> None:
    model, clouds = network("ws_gn"), torch.randn(6, 3, 16, dtype=torch.float64)
    for part in (model.edge_convs, model.global_feature):
        part.requires_grad_(False)
    whole = copy.deepcopy(model)
    loss_of(whole(clouds)).backward()
    cached_backward(model.pool, clouds.split(2), lambda x: loss_of(model.head(x)).backward(), model)
    assert_same(model, whole)
    assert all(parameter.grad is None for parameter in model.edge_convs.parameters())


def test_a_backward_that_does_not_reach_the_outputs_is_told_so() -> None:
    model, clouds = network("ws_gn"), torch.randn(6, 3, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="must backpropagate to its argument"):
        cached_backward(model.pool, clouds.split(2), lambda x: None, model)


def test_in_bfloat16_both_passes_see_the_same_bits() -> None:
    """So the gradient that the head gives is that of what the body then computes again."""
    model, clouds = network("ws_gn").float(), torch.randn(6, 3, 16)
    seen: list[Tensor] = []

    def body(part: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            seen.append(model.pool(part))
        return seen[-1]

    cached_backward(body, clouds.split(2), lambda x: loss_of(model.head(x)).backward(), model)
    assert all(torch.equal(one, other) for one, other in zip(seen[:3], seen[3:], strict=True))
