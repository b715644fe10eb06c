#!/bin/bash
# pypcd4 1.5.1: a survey's coordinates (float64, metres of a map projection) made into a cloud.
#
# Guess: PointCloud.from_xyz_points keeps the type of the array that it gets, as PCD knows 8-byte fields (SIZE 8).
# Behaviour: it makes float32 of them without a word: at 5,000 km north points move by up to a quarter of a metre.
#   from_points with np.float64 named for every field keeps them.
# Output seen:
#   from_xyz_points: float32, off by 0.25 m
#   from_points: float64, off by 0.00 m
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pypcd4==1.5.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from pypcd4 import PointCloud

points = np.random.default_rng(0).normal(size=(150, 3)) + [450_000, 5_000_000, 100]
off = {}
for name, cloud in (
    ("from_xyz_points", PointCloud.from_xyz_points(points)),
    ("from_points", PointCloud.from_points(points, ["x", "y", "z"], [np.float64] * 3)),
):
    off[name] = np.abs(cloud.numpy() - points).max()
    print(f"{name}: {cloud.numpy().dtype}, off by {off[name]:.2f} m")
assert off["from_xyz_points"] > 0.2 and off["from_points"] == 0
PY
