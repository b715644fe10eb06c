#!/bin/bash
# point-cloud-utils 0.34.0: sampling a mesh so that it can be done again.
#
# Guess: sample_mesh_random(v, f, n, random_seed=0) draws the same points each time.
# Behaviour: 0 is how it asks for a seed of the clock. Every other number is a seed; 0, which most people choose, is none.
# Output seen (the same points twice):
#   seed 0: False
#   seed 7: True
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q point-cloud-utils==0.34.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from point_cloud_utils import sample_mesh_random

vertices = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
faces = np.array([[0, 1, 2], [0, 2, 3]])
same = {}
for seed in (0, 7):
    first, second = (sample_mesh_random(vertices, faces, 100, random_seed=seed)[0] for _ in range(2))
    same[seed] = np.array_equal(first, second)
    print(f"seed {seed}: {same[seed]}")
assert same == {0: False, 7: True}
PY
