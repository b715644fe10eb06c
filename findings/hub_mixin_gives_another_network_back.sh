#!/bin/bash
# huggingface_hub 2.4.0: `PyTorchModelHubMixin`, `save_pretrained(folder)` and `from_pretrained(folder)`, offline, torch 2.13.0.
#
# Guess: what is saved comes back: the arguments of `__init__` and all weights; what cannot be written, or does not fit, is an error.
# Behaviour: an argument that JSON cannot hold (here the class of an activation) is left out of config.json, and
#   the network is made with its default: other outputs by the same weights. And weights are loaded with strict=False: of a file whose
#   names are all others, nothing is loaded, and the network that comes back has the random weights of its making. Neither is said.
# Output seen:
#   saved with activation Tanh, width 8; back with activation ReLU, width 8
#   weights under other names: loaded 0 of 2, no error; strict=True: RuntimeError
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q huggingface_hub==2.4.0 safetensors==0.8.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import nn


class Net(nn.Module, PyTorchModelHubMixin):
    def __init__(self, width=4, activation=nn.ReLU):
        super().__init__()
        self.linear = nn.Linear(3, width)
        self.activation = activation()


class Renamed(nn.Module, PyTorchModelHubMixin):
    """As a later version that calls its layer otherwise."""

    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Linear(3, width)


saved = Net(8, activation=nn.Tanh)
saved.save_pretrained("folder")
back = Net.from_pretrained("folder")
names = type(saved.activation).__name__, type(back.activation).__name__
print("saved with activation {}, width 8; back with activation {}, width {}".format(*names, back.linear.out_features))

torch.manual_seed(1)
expected = Renamed(8)
torch.manual_seed(1)
other = Renamed.from_pretrained("folder")
random = all(torch.equal(a, b) for a, b in zip(other.parameters(), expected.parameters(), strict=True))
try:
    Renamed.from_pretrained("folder", strict=True)
    strict = "no error"
except RuntimeError:
    strict = "RuntimeError"
print(f"weights under other names: loaded {0 if random else 2} of 2, no error; strict=True: {strict}")
assert names == ("Tanh", "ReLU") and random and strict == "RuntimeError"
PY
