#!/bin/bash
# pykdtree 1.4.3: `KDTree(points).query(points, k)` where a cloud has fewer than k points.
#
# Guess: as scipy's cKDTree, whose interface it takes: what is missing has distance inf and, as index, the number of points, so that
#   `np.isfinite(distances)` tells what is there; or it is refused.
# Behaviour: of float32 points missing neighbours have a distance of 1.8e19 (the root of float32's largest number) and the index 4,294,967,295. Only where
#   distance_upper_bound is given do they have inf. So a mean distance to the neighbours, by which outliers are dropped, is finite,
#   enormous and alike for every point.
# Output seen (10 points, 12 neighbours):
#   scipy: distances [inf inf], indices [10 10]
#   pykdtree: distances [1.8446743e+19 1.8446743e+19], indices [4294967295 4294967295]
#   pykdtree, distance_upper_bound=1e9: distances [inf inf], indices [10 10]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pykdtree==1.4.3 numpy==2.4.6 scipy==1.17.1
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from pykdtree.kdtree import KDTree
from scipy.spatial import cKDTree

points = np.random.default_rng(0).random((10, 3)).astype(np.float32)
answers = {
    "scipy": cKDTree(points).query(points, 12),
    "pykdtree": KDTree(points).query(points, 12),
    "pykdtree, distance_upper_bound=1e9": KDTree(points).query(points, 12, distance_upper_bound=1e9),
}
for name, (distances, indices) in answers.items():
    print(f"{name}: distances {distances[0, 10:]}, indices {indices[0, 10:]}")
scipy, without, bounded = answers.values()
assert np.isinf(scipy[0][:, 10:]).all() and np.isinf(bounded[0][:, 10:]).all() and (bounded[1][:, 10:] == 10).all()
assert np.isfinite(without[0]).all() and (without[1][:, 10:] == 2**32 - 1).all()
PY
