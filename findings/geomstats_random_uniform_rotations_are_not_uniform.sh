#!/bin/bash
# geomstats 2.8.0: turning clouds by random rotations, `SpecialOrthogonal(3, point_type=...).random_uniform(n)`.
#
# Guess: rotations are drawn uniformly (by Haar's measure), so the z axis lands anywhere on the sphere alike: its height is uniform
#   between -1 and 1, half of the clouds are turned by more than 130 degrees, and both point types are the same rotations.
# Behaviour: neither is uniform.
#   "vector": rotation vectors from a cube of side 2, so by 99 degrees at most; no cloud is ever upside down.
#   "matrix": Q of the QR decomposition of normal numbers, whose signs are not made those of R's diagonal (Mezzadri,
#   arXiv math-ph/0609050), so the first column's first entry is never above 0: the x axis stays on one side.
# Output seen (20,000 rotations):
#   vector: at most 96 degrees, median 56; R[0, 0] from 0.17 to 1.00; R[2, 2] from 0.17 to 1.00
#   matrix: at most 180 degrees, median 147; R[0, 0] from -1.00 to -0.00; R[2, 2] from -0.49 to 1.00
#   scipy: at most 180 degrees, median 133; R[0, 0] from -1.00 to 1.00; R[2, 2] from -1.00 to 1.00
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q geomstats==2.8.0 numpy==2.2.6 scipy==1.15.3
cd "$folder"
GEOMSTATS_BACKEND=numpy venv/bin/python - <<'PY'
import numpy as np
from geomstats.geometry.special_orthogonal import SpecialOrthogonal
from scipy.spatial.transform import Rotation

COUNT = 20_000
np.random.seed(0)
vectors = SpecialOrthogonal(3, point_type="vector").random_uniform(COUNT)
matrices = SpecialOrthogonal(3, point_type="matrix").random_uniform(COUNT)
kinds = {
    "vector": Rotation.from_rotvec(vectors),
    "matrix": Rotation.from_matrix(matrices),
    "scipy": Rotation.random(COUNT, random_state=0),
}
for name, rotations in kinds.items():
    turned = np.degrees(rotations.magnitude())
    x, z = rotations.as_matrix()[:, 0, 0], rotations.as_matrix()[:, 2, 2]
    print(
        f"{name}: at most {turned.max():.0f} degrees, median {np.median(turned):.0f}; "
        f"R[0, 0] from {x.min():.2f} to {x.max():.2f}; R[2, 2] from {z.min():.2f} to {z.max():.2f}"
    )
assert np.degrees(kinds["vector"].magnitude()).max() < 100 and kinds["vector"].as_matrix()[:, 2, 2].min() > 0
assert kinds["matrix"].as_matrix()[:, 0, 0].max() <= 0
assert kinds["scipy"].as_matrix()[:, 0, 0].max() > 0.99 and np.degrees(kinds["scipy"].magnitude()).max() > 179
PY
