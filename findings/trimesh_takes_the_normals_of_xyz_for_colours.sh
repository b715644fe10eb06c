#!/bin/bash
# trimesh 5.2.0: an .xyz file with six columns, x y z nx ny nz, as scanners and Poisson reconstruction write them.
#
# Guess: the last three columns are kept as normals, or dropped.
# Behaviour: they become colours, cut to whole numbers and wrapped to a byte: a normal of -1 is a red of 255, all that lies
#   between -1 and 1 is black. Nothing is said, and the cloud has no normals.
# Output seen:
#   normal [0.0, 0.0, 1.0] is colour [0, 0, 1, 255]
#   normal [-1.0, 0.0, 0.0] is colour [255, 0, 0, 255]
#   normal [0.6, 0.8, 0.0] is colour [0, 0, 0, 255]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q trimesh==5.2.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import trimesh

normals = np.array([[0, 0, 1.0], [-1, 0, 0], [0.6, 0.8, 0]])
np.savetxt("scan.xyz", np.hstack([np.eye(3), normals]))
cloud = trimesh.load("scan.xyz")
for normal, colour in zip(normals.tolist(), cloud.colors.tolist(), strict=True):
    print("normal", normal, "is colour", colour)
assert cloud.colors.tolist() == [[0, 0, 1, 255], [255, 0, 0, 255], [0, 0, 0, 255]]
assert not hasattr(cloud, "vertex_normals")
PY
