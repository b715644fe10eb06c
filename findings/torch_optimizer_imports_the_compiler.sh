#!/bin/bash
# torch 2.13.0: what the first optimizer of a process costs.
#
# Guess: an eager optimizer on eager parameters needs no compiler; making one takes microseconds.
# Behaviour: the constructor of the first optimizer imports torch._dynamo and hundreds of modules with it, sympy's among them:
#   more than a second of processor time in every training process, whatever is trained. A custom operator
#   (torch.library.custom_op) does the same at its first call.
# Output seen:
#   torch._dynamo after `import torch`: False
#   after torch.optim.SGD([p], lr=0.1): True, 823 modules more
#   after the first call of a custom operator: True
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cd "$folder"
venv/bin/python - <<'PY'
import sys

import torch

print("torch._dynamo after `import torch`:", "torch._dynamo" in sys.modules)
assert "torch._dynamo" not in sys.modules
before = len(sys.modules)
torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
more = len(sys.modules) - before
print("after torch.optim.SGD([p], lr=0.1):", "torch._dynamo" in sys.modules, f"{more} modules more")
assert "torch._dynamo" in sys.modules and more > 300
PY
venv/bin/python - <<'PY'
import sys

import torch


@torch.library.custom_op("finding::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


assert "torch._dynamo" not in sys.modules
twice(torch.ones(1))
print("after the first call of a custom operator:", "torch._dynamo" in sys.modules)
assert "torch._dynamo" in sys.modules
PY
