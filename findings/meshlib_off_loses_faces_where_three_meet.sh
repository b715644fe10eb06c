#!/bin/bash
# meshlib 3.1.4.297: a mesh in which three faces share an edge, as in most of ModelNet's, read from .off and from other formats.
#
# Guess: the format does not matter. A half-edge structure cannot hold three faces at one edge, so their vertices are doubled, and
#   the surface stays whole.
# Behaviour: so it is with .ply, .obj and .stl. From .off, the format of ModelNet, the third face is left out without a word: a third of
#   this surface is gone, and points sampled of it lack a fin, a shelf or a wall.
# Output seen (three triangles of area 1/2 at one edge):
#   .off: 2 faces, area 1.00
#   .ply: 3 faces, area 1.50
#   .obj: 3 faces, area 1.50
#   .stl: 3 faces, area 1.50
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q meshlib==3.1.4.297 trimesh==5.2.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import trimesh
from meshlib import mrmeshpy

vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1]])
fan = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 1, 3], [0, 1, 4]], process=False)
assert fan.area == 1.5
found = {}
for ending in ("off", "ply", "obj", "stl"):
    fan.export(f"fan.{ending}")
    mesh = mrmeshpy.loadMesh(f"fan.{ending}")
    found[ending] = (mesh.topology.numValidFaces(), round(mesh.area(), 2))
    print(".{}: {} faces, area {:.2f}".format(ending, *found[ending]))
assert found.pop("off") == (2, 1.0) and set(found.values()) == {(3, 1.5)}
PY
