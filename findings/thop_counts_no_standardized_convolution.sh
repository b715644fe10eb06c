#!/bin/bash
# thop 0.1.1.post2209072238, ptflops 0.7.5, torch-pruning 1.6.1, torchinfo 1.8.0 (torch 2.13.0): multiply-adds of a
# network with weight standardization.
#
# Guess: a convolution that standardizes its weight, a subclass of nn.Conv2d (as timm's and most copies have it) or an nn.Conv2d with
#   a parametrization, costs what the plain one costs, and is counted so.
# Behaviour: thop knows layers by their exact class, so subclasses cost nothing and have no parameters, without a word
#   unless report_missing=True; torch-pruning and ptflops with backend "pytorch" count no subclass either. A parametrization changes
#   a layer's class too: all three leave the layer out then, and torchinfo as well. ptflops with backend "aten" and torch's
#   FlopCounterMode count the operations themselves and are right. So a table of costs can show a standardized network for nothing.
# Output seen (an edge convolution of 256 points and 20 neighbours, 6 to 64 to 128 channels, and a classifier; the truth is 43.9):
#   million multiply-adds    plain    subclass    parametrized
#   thop                      43.9         0.0             0.0
#   ptflops, pytorch          46.2         2.3             2.3
#   torch-pruning             45.6         1.6             1.6
#   torchinfo                 43.9        43.9             0.0
#   ptflops, aten             43.9        43.9            43.9
#   FlopCounterMode / 2       43.9        43.9            43.9
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
"$folder/venv/bin/pip" install -q --no-deps thop==0.1.1.post2209072238 ptflops==0.7.5 torch-pruning==1.6.1 torchinfo==1.8.0
cd "$folder"
venv/bin/python - <<'PY'
import contextlib
import io
import warnings

warnings.simplefilter("ignore")
import ptflops
import thop
import torch
import torch_pruning
import torchinfo
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode


class Standardized(nn.Module):
    def forward(self, weight):
        std, mean = torch.std_mean(weight, (1, 2, 3), keepdim=True)
        return (weight - mean) / (std + 1e-5)


class WSConv2d(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, Standardized()(self.weight), self.bias)


def network(conv):
    return nn.Sequential(
        conv(6, 64, 1, bias=False), nn.GroupNorm(8, 64), nn.LeakyReLU(0.2), conv(64, 128, 1, bias=False),
        nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(128, 40),
    )


def parametrized():
    net = network(nn.Conv2d)
    for layer in (net[0], net[3]):
        parametrize.register_parametrization(layer, "weight", Standardized())
    return net


def flop_counter(net):
    with FlopCounterMode(display=False) as counter:
        net(edges)
    return counter.get_total_flops() / 2


def with_ptflops(backend):
    options = dict(as_strings=False, print_per_layer_stat=False, backend=backend)
    return lambda net: ptflops.get_model_complexity_info(net, (6, 256, 20), **options)[0]


edges = torch.randn(1, 6, 256, 20)
truth = 256 * 20 * (6 * 64 + 64 * 128) + 128 * 40
counts = {
    "thop": lambda net: thop.profile(net, (edges,), verbose=False)[0],
    "ptflops, pytorch": with_ptflops("pytorch"),
    "torch-pruning": lambda net: torch_pruning.utils.count_ops_and_params(net, edges)[0],
    "torchinfo": lambda net: torchinfo.summary(net, input_data=edges, verbose=0).total_mult_adds,
    "ptflops, aten": with_ptflops("aten"),
    "FlopCounterMode / 2": flop_counter,
}
makers = (lambda: network(nn.Conv2d), lambda: network(WSConv2d), parametrized)
for row, ((name, count), missed) in enumerate(zip(counts.items(), (2, 2, 2, 1, 0, 0))):
    with contextlib.redirect_stdout(io.StringIO()):
        found = [count(make()) for make in makers]
    if row == 0:
        print(f"{'million multiply-adds':21} {'plain':>8} {'subclass':>11} {'parametrized':>15}")
    print(f"{name:21} {found[0] / 1e6:8.1f} {found[1] / 1e6:11.1f} {found[2] / 1e6:15.1f}")
    assert 0.99 * truth < found[0] < 1.06 * truth
    assert [n < 0.06 * truth for n in found[1:]] == [missed == 2, missed >= 1]
    assert missed or all(abs(n - truth) < 0.01 * truth for n in found)
assert thop.profile(network(WSConv2d), (edges,), verbose=False)[1] < 128 * 40 + 41  # its parameters: those of nn.Linear
PY
