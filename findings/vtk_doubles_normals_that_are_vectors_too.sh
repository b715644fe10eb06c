#!/bin/bash
# pyvista 0.49.1 with vtk 9.7.2: turning a cloud whose normals are the active normals and the active vectors, as glyphs need them.
#
# Guess: each of 100 points has one normal after rotate_x(90), turned with the points.
# Behaviour: the array has 200 rows: the turned normals, and behind them the turned normals again. As the
#   one or the other alone the array is turned rightly, and as neither it stays as it was. translate, scale and transform double it
#   as well (all of them call vtkTransformFilter).
# Output seen:
#   active as nothing: (100, 3), as they were
#   active as normals: (100, 3), turned
#   active as vectors: (100, 3), turned
#   active as both: (200, 3), turned, twice
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.3.5 vtk==9.7.2 pyvista==0.49.1
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import numpy as np
import pyvista as pv

warnings.simplefilter("ignore")
points = np.random.default_rng(0).normal(size=(100, 3))
normals = points / np.linalg.norm(points, axis=1, keepdims=True)
turned = normals @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]]).T
for role in ("nothing", "normals", "vectors", "both"):
    cloud = pv.PolyData(points)
    cloud.point_data["n"] = normals
    if role in ("vectors", "both"):
        cloud.set_active_vectors("n")
    if role in ("normals", "both"):
        cloud.point_data.active_normals_name = "n"
    found = np.asarray(cloud.rotate_x(90).point_data["n"])
    said = "turned, twice" if len(found) == 200 else "as they were" if np.allclose(found, normals) else "turned"
    print(f"active as {role}: {found.shape}, {said}")
    expected = normals if role == "nothing" else np.tile(turned, (2 if role == "both" else 1, 1))
    assert found.shape == expected.shape and np.allclose(found, expected, atol=1e-6)
for move in (lambda c: c.translate((1, 0, 0)), lambda c: c.scale(2.0, inplace=False), lambda c: c.transform(np.eye(4), inplace=False)):
    assert len(np.asarray(move(cloud).point_data["n"])) == 200
PY
