#!/bin/bash
# DracoPy 2.2.0: storing a cloud in Draco's format, `decode(encode(points)).points`, its labels beside it.
#
# Guess: lossy in the coordinates (they are quantized), but one point out for each point in, in the same order, as from a file.
# Behaviour: points come back in the order of a tree, and of equal ones one. Labels or
#   features kept in another array then belong to other points. With preserve_order=True all come back, in order.
# Output seen (1,000 points in a cube of 1 m; farthest that a point is from where it was):
#   by default: 1000 points, 1.36 m
#   preserve_order=True: 1000 points, 0.00 m
#   each point twice, by default: 1000 of 2000 points; preserve_order=True: 2000
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q DracoPy==2.2.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import DracoPy
import numpy as np


def round_trip(points, **options):
    return DracoPy.decode(DracoPy.encode(points, **options)).points


cloud = np.random.default_rng(0).random((1000, 3)).astype(np.float32)
found = []
for name, options in (("by default", {}), ("preserve_order=True", {"preserve_order": True})):
    back = round_trip(cloud, **options)
    found.append(np.linalg.norm(back - cloud, axis=1).max())
    print(f"{name}: {len(back)} points, {found[-1]:.2f} m")
twice = np.repeat(cloud, 2, axis=0)
kept = len(round_trip(twice)), len(round_trip(twice, preserve_order=True))
print("each point twice, by default: {} of 2000 points; preserve_order=True: {}".format(*kept))
assert found[0] > 0.5 and found[1] < 1e-3 and kept == (1000, 2000)
PY
