#!/bin/bash
# torch_geometric 2.8.1: clouds with labels in one batch, `Batch.from_data_list` (so DataLoader too), torch 2.13.0 on the CPU.
#
# Guess: attributes of one's own, a class number for each cloud, are put one behind the other; those that number points are `edge_index`
#   and `face`.
# Behaviour: whatever has "index" anywhere in its name numbers points: to the second cloud's value the points of the first are added,
#   and so on; whatever has "batch" in its name is raised by the values before it. `class_index`, the same label for all clouds, becomes a
#   different one for each, `batch_id` too. No warning; the loss complains only of labels beyond the last class. (The
#   documentation of Batch names the rule for "index".)
# Output seen (three clouds of 5 points; y, class_index and batch_id are 3 in each):
#   y [3, 3, 3], class_index [3, 8, 13], batch_id [3, 7, 11]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q torch-geometric==2.8.1
cd "$folder"
venv/bin/python - <<'PY'
import torch
from torch_geometric.data import Batch, Data

label = torch.tensor([3])
clouds = [Data(pos=torch.rand(5, 3), y=label, class_index=label, batch_id=label) for _ in range(3)]
batch = Batch.from_data_list(clouds)
found = [batch[name].tolist() for name in ("y", "class_index", "batch_id")]
print("y {}, class_index {}, batch_id {}".format(*found))
assert found == [[3, 3, 3], [3, 8, 13], [3, 7, 11]]
PY
