#!/bin/bash
# pyntcloud 0.3.1: points drawn on a mesh, `get_sample("mesh_random", n=...)`, as one makes clouds of ModelNet's meshes.
#
# Guess: points lie evenly on the surface: of a triangle cut into four equal ones each gets a quarter of them.
# Behaviour: triangles are drawn by their areas, but half of a triangle's points lie in the quarter at the vertex that its face
#   names first, and in the mean they stand at (1/2, 1/4, 1/4) of the corners instead of (1/3, 1/3, 1/3). So density
#   depends on the order of a face's vertices: the same mesh with faces written from another vertex gives other clouds.
# Output seen (100,000 points on one triangle, shares of the quarters at its three vertices and of the one between them):
#   face 0 1 2: 0.50 0.15 0.15 0.19
#   face 1 2 0: 0.15 0.50 0.15 0.19
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyntcloud==0.3.1 numpy==2.4.6 pandas==3.0.0 scipy==1.17.1
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import pandas as pd
from pyntcloud import PyntCloud

corners = pd.DataFrame([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], columns=["x", "y", "z"])
found = {}
for face in ([0, 1, 2], [1, 2, 0]):
    np.random.seed(0)
    cloud = PyntCloud(corners, pd.DataFrame([face], columns=["v1", "v2", "v3"]))
    x, y, _ = cloud.get_sample("mesh_random", n=100_000)[["x", "y", "z"]].to_numpy().T
    quarters = [np.mean(weight > 0.5) for weight in (1 - x - y, x, y)]
    found[face[0]] = [round(float(share), 2) for share in (*quarters, 1 - sum(quarters))]
    print("face", *face, end=": ")
    print(*(f"{share:.2f}" for share in found[face[0]]))
for first, shares in found.items():
    assert shares[first] > 0.45 and all(share < 0.25 for place, share in enumerate(shares) if place != first)
PY
