#!/bin/bash
# torch 2.13.0: what `load_state_dict(strict=False)` tells the modules inside.
#
# Guess: a module that overrides `_load_from_state_dict(..., strict, ...)`, to check more than names and shapes, gets
#   the `strict` that the user gave, so it can let `strict=False` pass.
# Behaviour: every module is told strict=True, whatever the user said; missing and unexpected names are dropped from the
#   error afterwards, and what the module itself put into `error_msgs` is raised with strict=False too. A check of
#   settings beside the weights (k, groups) cannot be switched off by strict=False.
# Output seen:
#   told True with strict=True; told True with strict=False
#   raised with strict=False: True
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
"$folder/venv/bin/python" - <<'PY'
import torch
from torch import nn

told = []


class Checked(nn.Linear):
    complain = False

    def _load_from_state_dict(self, state_dict, prefix, metadata, strict, missing, unexpected, error_msgs):
        told.append(strict)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, missing, unexpected, error_msgs)
        if self.complain:
            error_msgs.append("these weights are of another setting")


model = nn.Sequential(Checked(2, 2))
for strict in (True, False):
    model.load_state_dict(model.state_dict(), strict=strict)
print(f"told {told[0]} with strict=True; told {told[1]} with strict=False")
model[0].complain = True
try:
    model.load_state_dict(model.state_dict(), strict=False)
    raised = False
except RuntimeError:
    raised = True
print("raised with strict=False:", raised)
assert all(told) and raised
PY
