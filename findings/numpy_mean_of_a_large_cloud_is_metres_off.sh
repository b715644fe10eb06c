#!/bin/bash
# numpy 2.4.6: the centre of a large scan, `points.mean(0)` of an array (N, 3) of float32, as scans are stored.
#
# Guess: numpy adds up pairwise, so a mean of float32 is good to six digits or so however many numbers it is of.
# Behaviour: pairwise it adds along the last axis in memory. Down the columns of (N, 3) it adds row after row to one float32 number, and
#   the larger that grows the more of each row is rounded off: the centre of 20 million points in a cube of 100 m is 3.2 m off,
#   and so is a cloud that is "centred" by it. The transposed layout (3, N), dtype=np.float64, and torch's mean(0) have it right.
# Output seen (distance to the centre in float64, m):
#   1,000,000 points: numpy (N, 3) 0.0009, numpy (3, N) 0.0000, torch 0.0000
#   20,000,000 points: numpy (N, 3) 3.2028, numpy (3, N) 0.0000, torch 0.0000
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import torch

rng, found = np.random.default_rng(0), {}
for count in (1_000_000, 20_000_000):
    points = rng.random((count, 3), dtype=np.float32) * np.float32(100)
    centre = points.mean(0, dtype=np.float64)
    means = (points.mean(0), np.ascontiguousarray(points.T).mean(1), torch.from_numpy(points).mean(0).numpy())
    found[count] = [np.linalg.norm(mean - centre) for mean in means]
    print("{:,} points: numpy (N, 3) {:.4f}, numpy (3, N) {:.4f}, torch {:.4f}".format(count, *found[count]))
assert found[20_000_000][0] > 1 and max(found[20_000_000][1:]) < 0.01
PY
