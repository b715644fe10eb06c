"""What is timed on ragged clouds: both implementations compute the same."""

import pytest
import torch
from torch import nn

from dgcnn_ws.benchmark import benchmark, ragged
from dgcnn_ws.benchmark.benchmark import Setting


def test_sizes_are_spread_from_an_eighth() -> None:
    sizes = ragged.cloud_sizes(16, 2048, 20)
    assert sorted(sizes)[0] == 256 and sorted(sizes)[-1] == 2048 and len(set(sizes)) == 16 and sizes != sorted(sizes)
    assert min(ragged.cloud_sizes(4, 64, 20)) == 20


@pytest.mark.parametrize("mode", ragged.CHANNELS)
@pytest.mark.parametrize("norm", ["ws_gn", "bn"])
def test_both_implementations_compute_the_same(mode: str, norm: str) -> None:
    theirs = ragged.make_edge_conv(mode, norm, 16, "torch_geometric").double()
    ours = ragged.make_edge_conv(mode, norm, 16, "fused").double()
    linears = [layer for layer in theirs.modules() if isinstance(layer, nn.Linear)]
    for depth, ((conv, _), linear) in enumerate(zip(ours.layers(), linears, strict=True)):
        weight = linear.weight.detach()
        conv.weight.data = (weight if depth else torch.cat(weight.chunk(2, 1)[::-1], 1)).view_as(conv.weight)
    x, edge_index, batch = ragged.clouds_of([9, 24, 15], 6)
    x = x.double().requires_grad_()
    outs = [ragged.call(layer, x, edge_index, batch) for layer in (ours, theirs)]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in outs))


def test_multiply_adds_of_the_mean_cloud() -> None:
    setting = Setting("ragged", "bn", 2048, batch_size=16)
    assert benchmark.ragged_multiply_adds(setting) == {"edge_convs": 3 * 1152 * 64 * 128}
    deep = Setting("ragged_deep", "bn", 2048, batch_size=16)
    assert benchmark.ragged_multiply_adds(deep) == {"edge_convs": 3 * 1152 * (64 * 128 + 20 * 64 * 64)}
