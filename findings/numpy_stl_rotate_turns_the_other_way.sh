#!/bin/bash
# numpy-stl 4.1.1: turning a mesh, `Mesh.rotate(axis, angle)`.
#
# Guess: by the right-hand rule, as scipy turns: a quarter about z brings the x axis to the y axis. Labels of headings,
#   and clouds that another library turned by the same angle, then fit.
# Behaviour: it turns the other way, clockwise as seen from the axis's end: x comes to -y.
# Output seen: scipy brings (1, 0, 0) to (0, 1, 0), numpy-stl to (0, -1, 0)
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy-stl==4.1.1 numpy==2.4.6 scipy==1.17.1
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from scipy.spatial.transform import Rotation
from stl.mesh import Mesh

triangle = np.zeros(1, Mesh.dtype)
triangle["vectors"][0] = np.eye(3)
mesh = Mesh(triangle)
mesh.rotate([0, 0, 1], np.pi / 2)
x = np.round(mesh.vectors[0, 0]) + 0.0
expected = np.round(Rotation.from_rotvec([0, 0, np.pi / 2]).apply([1, 0, 0])) + 0.0
print("scipy brings (1, 0, 0) to ({:.0f}, {:.0f}, {:.0f}), numpy-stl to ({:.0f}, {:.0f}, {:.0f})".format(*expected, *x))
assert expected.tolist() == [0, 1, 0] and x.tolist() == [0, -1, 0]
PY
