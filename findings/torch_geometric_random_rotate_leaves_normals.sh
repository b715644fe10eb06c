#!/bin/bash
# torch_geometric 2.8.1 on torch 2.13.0: augmenting clouds whose points carry normals (`Data(pos=..., normal=...)`).
#
# Guess: what turns or mirrors a cloud turns its normals with it, as NormalizeRotation does.
# Behaviour: RandomRotate, RandomFlip, RandomShear and LinearTransformation change `pos` alone. The normals keep pointing where
#   they did before, off the surface, and a network learns from features that contradict its coordinates.
# Output seen (how far normals stand from the turned plane's own, degrees):
#   RandomRotate 90
#   LinearTransformation 90
#   NormalizeRotation 0
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torch_geometric==2.8.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import torch
from torch_geometric.data import Data
from torch_geometric.transforms import LinearTransformation, NormalizeRotation, RandomRotate

torch.manual_seed(0)
flat = torch.rand(50, 3) * torch.tensor([3.0, 2.0, 0.0])  # a plane, whose normal is z
cloud = Data(pos=flat - flat.mean(0), normal=torch.tensor([[0.0, 0.0, 1.0]]).expand(50, 3))
quarter = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
found = {}
for name, transform in (
    ("RandomRotate", RandomRotate((90, 90), axis=0)),
    ("LinearTransformation", LinearTransformation(quarter)),
    ("NormalizeRotation", NormalizeRotation()),
):
    after = transform(cloud.clone())
    plane = torch.linalg.svd(after.pos - after.pos.mean(0)).Vh[2]
    found[name] = round(float(torch.rad2deg(torch.acos((after.normal[0] @ plane).abs().clamp(max=1)))))
    print(name, found[name])
assert found == {"RandomRotate": 90, "LinearTransformation": 90, "NormalizeRotation": 0}
PY
