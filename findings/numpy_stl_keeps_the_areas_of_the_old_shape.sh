#!/bin/bash
# numpy-stl 4.1.1: sampling a mesh by the areas of its triangles, `Mesh.areas`, after it was scaled.
#
# Guess: `areas`, a property, is of the vertices as they are.
# Behaviour: it is computed when it is first asked for and kept: after `mesh.vectors *= ...` it is of the old shape until
#   `update_areas()` is called. Where axes are scaled apart, as in augmentation, the triangles' shares are wrong, and so is where
#   samples lie.
# Output seen (a triangle of the floor and one of a wall, alike; then x is stretched by 4, along the floor):
#   share of the samples that belong to the floor: 0.50 by areas, 0.80 by update_areas()
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy-stl==4.1.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from stl.mesh import Mesh

triangles = np.zeros(2, Mesh.dtype)
triangles["vectors"][0] = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]  # the floor, along x
triangles["vectors"][1] = [[0, 0, 0], [0, 1, 0], [0, 0, 1]]  # the wall, across x
mesh = Mesh(triangles)
assert np.allclose(mesh.areas.ravel(), 0.5)
mesh.vectors *= np.array([4, 1, 1], np.float32)
shares = []
for update in (False, True):
    if update:
        mesh.update_areas()
    shares.append(mesh.areas.ravel()[0] / mesh.areas.sum())
print("share of the samples that belong to the floor: {:.2f} by areas, {:.2f} by update_areas()".format(*shares))
assert np.allclose(shares, [0.5, 0.8])
PY
