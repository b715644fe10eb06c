#!/bin/bash
# meshlib 3.1.4.297: a cloud in .pts (the number of points, then a line of x y z intensity r g b for each), `loadPoints(path)`.
#
# Guess: as many points come back as the first line says, where the file has them, as `loadPoints` gives them from .xyz.
# Behaviour: the first point is missing, and all others are moved so that the second lies in the origin. A file that lacks its
#   first line, so is no whole .pts, comes back whole and in its place.
# Output seen:
#   with the number of points: [[0.0, 0.0, 0.0], [3.0, 3.0, 3.0], [4.0, -7.0, -18.0]]
#   without: [[10.0, 20.0, 30.0], [11.0, 22.0, 33.0], [14.0, 25.0, 36.0], [15.0, 15.0, 15.0]]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q meshlib==3.1.4.297 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
from meshlib import mrmeshnumpy, mrmeshpy

points = [[10.0, 20.0, 30.0], [11.0, 22.0, 33.0], [14.0, 25.0, 36.0], [15.0, 15.0, 15.0]]
lines = "".join(f"{x} {y} {z} 100 255 128 0\n" for x, y, z in points)
found = {}
for name, first_line in (("with the number of points", "4\n"), ("without", "")):
    with open("cloud.pts", "w") as file:
        file.write(first_line + lines)
    found[name] = mrmeshnumpy.toNumpyArray(mrmeshpy.loadPoints("cloud.pts").points).tolist()
    print(f"{name}: {found[name]}")
assert found["with the number of points"] == [[a - b for a, b in zip(p, points[1])] for p in points[1:]]
assert found["without"] == points
PY
