#!/bin/bash
# small_gicp 1.0.1: thinning a cloud on a grid of voxels, `voxelgrid_sampling(points, size)`.
#
# Guess: where a cloud lies does not matter: the same cloud in map coordinates (UTM northings are millions of metres) keeps as many
#   points, or it is refused.
# Behaviour: a voxel's number has 21 bits an axis, so from 1,048,576 voxels from the origin on points have none. They are not refused and
#   not left out one by one: one point comes back for the whole cloud, and no exception, only a line on standard error for each
#   point. With voxels of 5 m the same cloud is thinned as it should be, with 1 m it is gone.
# Output seen (20,000 points in a cube of 100 m):
#   at the origin: 19784 points at 1 m, 7311 at 5 m
#   at 500 km east, 5,000 km north: 1 points at 1 m, 7311 at 5 m
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q small_gicp==1.0.1 numpy==2.4.6
cd "$folder"
venv/bin/python - 2>errors <<'PY'
import numpy as np
import small_gicp

cloud = np.random.default_rng(0).random((20_000, 3)) * 100
found = {}
for name, place in (("at the origin", [0, 0, 0]), ("at 500 km east, 5,000 km north", [500_000, 5_000_000, 0])):
    found[name] = [small_gicp.voxelgrid_sampling(cloud + place, size).size() for size in (1.0, 5.0)]
    print("{}: {} points at 1 m, {} at 5 m".format(name, *found[name]))
near, far = found.values()
assert near[0] > 19_000 and far[0] == 1 and near[1] == far[1] > 7_000
PY
[ "$(sort -u errors)" = "warning: voxel coord is out of range!!" ]
