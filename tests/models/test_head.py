"""The fully connected head: which layers each head norm puts where, and what it computes."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dgcnn_ws.errors import InputError
from dgcnn_ws.models import DGCNN, DGCNNSeg
from dgcnn_ws.models.head import Head
from dgcnn_ws.nn import WSLinear
from dgcnn_ws.nn.norm import RunningStandardization

HEAD_NORMS = ("bn", "gn", "ln", "est", "none")
DEFAULTS = {"ws_gn": "est", "gn": "est", "ws_bcn": "est", "ws_bn": "bn", "bn": "bn"}


def head(norm: str = "ws_gn", head_norm: str | None = None, dropout: float = 0.5) -> Head:
    torch.manual_seed(0)
    return Head(
        8, 3, (12, 6), norm, head_norm,
        parts=2, groups=4, dropout=dropout, eps=1e-3,
    )  # fmt: skip


@pytest.mark.parametrize("head_norm", HEAD_NORMS)
@pytest.mark.parametrize("norm", DEFAULTS)
def test_layers(norm: str, head_norm: str) -> None:
    module = head(norm, head_norm)
    linear = [layer for layer in module.layers if isinstance(layer, nn.Linear)]
    normed = head_norm in ("bn", "gn")
    hidden = WSLinear if normed and norm.startswith("ws_") else nn.Linear
    assert [type(layer) for layer in linear] == [hidden, hidden, nn.Linear], "the last layer is plain"
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(8, 12), (12, 6), (6, 3)]
    assert [layer.bias is not None for layer in linear] == [not normed, True, True]
    norms = [layer for layer in module.layers if isinstance(layer, (nn.BatchNorm1d, nn.GroupNorm))]
    assert [type(layer) for layer in norms] == {"bn": [nn.BatchNorm1d] * 2, "gn": [nn.GroupNorm] * 2}.get(head_norm, [])
    assert all(layer.eps == 1e-3 for layer in norms)
    assert [layer.p for layer in module.layers if isinstance(layer, nn.Dropout)] == [0.5, 0.5]
    first = {"ln": nn.GroupNorm, "est": RunningStandardization}.get(head_norm, nn.Identity)
    assert type(module.pooled_norm) is first
    assert module(torch.randn(5, 8)).shape == (5, 3)


@pytest.mark.parametrize(
    "model",
    [
        lambda: DGCNN(4, k=4, widths=(8, 8), emb_dims=16, hidden=(32, 8), norm="gn", head_norm="gn"),
        lambda: DGCNNSeg(4, k=4, widths=(8, 8), emb_dims=32, hidden=(8,), norm="gn", head_norm="gn"),
    ],
)
def test_no_group_of_a_vector_has_one_channel_alone_of_which_nothing_would_be_left(
    model: Callable[[], nn.Module],
) -> None:
    torch.manual_seed(0)
    network, seen = model().eval(), []
    for norm in network.modules():
        if isinstance(norm, nn.GroupNorm):
            norm.register_forward_hook(lambda _, inputs, output: seen.append(output) if inputs[0].ndim == 2 else None)
    network(torch.randn(5, 3, 20))
    assert seen and all(output.std(0).min() > 1e-3 for output in seen)  # each channel tells clouds apart


@pytest.mark.parametrize("norm", DEFAULTS)
def test_default_is_safe_for_the_body_it_belongs_to(norm: str) -> None:
    assert str(head(norm)) == str(head(norm, DEFAULTS[norm]))


def test_ln_normalises_each_part_of_the_pooled_vector() -> None:
    module, pooled = head(head_norm="ln").eval(), torch.randn(5, 8)
    x = torch.cat([F.layer_norm(part, (4,)) for part in pooled.chunk(2, 1)], 1)
    for i, layer in enumerate([layer for layer in module.layers if isinstance(layer, nn.Linear)]):
        x = F.linear(x if i == 0 else F.leaky_relu(x, 0.2), layer.weight, layer.bias)
    torch.testing.assert_close(module(pooled), x)


@pytest.mark.parametrize("head_norm", ["gn", "ln", "est", "none"])
def test_clouds_are_independent_in_training(head_norm: str) -> None:
    pooled = torch.randn(5, 8)
    whole = head(head_norm=head_norm, dropout=0)(pooled)
    alone = torch.cat([head(head_norm=head_norm, dropout=0)(row) for row in pooled.split(1)])
    torch.testing.assert_close(whole, alone)


def test_batch_norm_cannot_train_on_one_cloud() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        head(head_norm="bn")(torch.randn(1, 8))
    assert head(head_norm="bn").eval()(torch.randn(1, 8)).shape == (1, 3)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(InputError, match="head norm 'in' is unknown"):
        head(head_norm="in")
    with pytest.raises(InputError, match="norm 'in' is unknown"):
        head("in")
