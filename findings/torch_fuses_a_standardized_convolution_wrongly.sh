#!/bin/bash
# torch 2.13.0: putting a batch norm into the convolution before it, for evaluation, where that one standardizes its weight.
#
# Guess: torch.nn.utils.fuse_conv_bn_eval gives a layer with the same answers, or refuses a subclass of nn.Conv2d that it does not
#   know, as torch.ao.quantization.fuse_modules does.
# Behaviour: it copies the subclass and multiplies the stored weight by the norm's scale; the copy standardizes that weight again, so
#   the norm's scale is lost: other answers, no word. Where the standardization is a parametrization it
#   raises KeyError. Bake the standardized weight into a plain nn.Conv2d first.
# Output seen (largest difference of the answers):
#   a plain convolution: 0.0000
#   a standardized one (subclass): 4.8323
#   its weight baked into a plain one first: 0.0000
#   torch.ao.quantization.fuse_modules: AssertionError
#   a standardized one (parametrization): KeyError
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cd "$folder"
venv/bin/python - <<'PY'
import warnings

warnings.simplefilter("ignore")
import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval, parametrize


class Standardized(nn.Module):
    def forward(self, weight):
        std, mean = torch.std_mean(weight, (1, 2, 3), keepdim=True)
        return (weight - mean) / (std + 1e-5)


class WSConv2d(nn.Conv2d):
    def forward(self, x):
        return self._conv_forward(x, Standardized()(self.weight), self.bias)


def pair(conv):
    torch.manual_seed(0)
    net = nn.Sequential(conv(6, 8, 1, bias=False), nn.BatchNorm2d(8))
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.1, 3)
    nn.init.uniform_(net[1].weight, 0.5, 2)
    nn.init.normal_(net[1].bias)
    return net.eval()


def difference(net, conv):
    return (fuse_conv_bn_eval(conv, net[1])(x) - net(x)).abs().max().item()


def error(call):
    try:
        call()
    except Exception as met:
        return type(met).__name__


x = torch.randn(2, 6, 5, 5, generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    plain, standardized = pair(nn.Conv2d), pair(WSConv2d)
    found = difference(plain, plain[0])
    print(f"a plain convolution: {found:.4f}")
    assert found < 1e-5
    found = difference(standardized, standardized[0])
    print(f"a standardized one (subclass): {found:.4f}")
    assert found > 1
    baked = nn.Conv2d(6, 8, 1, bias=False).eval()
    baked.weight.copy_(Standardized()(standardized[0].weight))
    found = difference(standardized, baked)
    print(f"its weight baked into a plain one first: {found:.4f}")
    assert found < 1e-5
name = error(lambda: torch.ao.quantization.fuse_modules(pair(WSConv2d), [["0", "1"]]))
print(f"torch.ao.quantization.fuse_modules: {name}")
assert name == "AssertionError"
net = pair(nn.Conv2d)
parametrize.register_parametrization(net[0], "weight", Standardized())
name = error(lambda: fuse_conv_bn_eval(net[0], net[1]))
print(f"a standardized one (parametrization): {name}")
assert name == "KeyError"
PY
