#!/bin/bash
# torch 2.13.0 and torch_geometric 2.8.1 (without torch_scatter): the gradient of a maximum over neighbours or points.
#
# Guess: the whole gradient of a maximum goes to the value or values that attain it, and with include_self=False what the output was
#   filled with before has no part in it.
# Behaviour: backward, `scatter_reduce` and `index_reduce` share the gradient with what was there before if that equals the maximum,
#   include_self or not. Outputs begin as zeros in torch_geometric, so wherever a maximum is exactly 0 (a block whose last norm begins with
#   factors of 0, differences to a point that is its own neighbour) a part of the gradient is lost: half where one value attains it,
#   and of k equal values 1 / (k + 1). `torch.segment_reduce` and `max` over a dimension lose nothing.
# Output seen (gradients of the maximum of two values):
#   scatter_reduce: of 1 and 0 [1.0, 0.0], of 0 and -1 [0.5, 0.0]
#   index_reduce: of 1 and 0 [1.0, 0.0], of 0 and -1 [0.5, 0.0]
#   global_max_pool: of 1 and 0 [1.0, 0.0], of 0 and -1 [0.5, 0.0]
#   segment_reduce: of 1 and 0 [1.0, 0.0], of 0 and -1 [1.0, 0.0]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torch_geometric==2.8.1 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import torch
from torch_geometric.nn import global_max_pool

rows = torch.zeros(2, dtype=torch.long)
ways = {
    "scatter_reduce": lambda x: torch.zeros(1).scatter_reduce(0, rows, x, "amax", include_self=False),
    "index_reduce": lambda x: torch.zeros(1).index_reduce(0, rows, x, "amax", include_self=False),
    "global_max_pool": lambda x: global_max_pool(x.unsqueeze(1), rows),
    "segment_reduce": lambda x: torch.segment_reduce(x, "max", lengths=torch.tensor([2])),
}
found = {}
for name, maximum in ways.items():
    for values in ([1.0, 0.0], [0.0, -1.0]):
        x = torch.tensor(values, requires_grad=True)
        maximum(x).sum().backward()
        found.setdefault(name, []).append(x.grad.tolist())
    print("{}: of 1 and 0 {}, of 0 and -1 {}".format(name, *found[name]))
assert found.pop("segment_reduce") == [[1.0, 0.0], [1.0, 0.0]]
assert all(gradients == [[1.0, 0.0], [0.5, 0.0]] for gradients in found.values())
PY
