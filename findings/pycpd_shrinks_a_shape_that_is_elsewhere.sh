#!/bin/bash
# pycpd 2.0.0: rigid registration of a cloud with the same cloud, turned by 17 degrees and moved.
#
# Guess: coherent point drift brings the centres of both clouds together first, or finds the shift however long it is; the scale
#   that it finds is 1.
# Behaviour: nothing is centred or normalised. A source that stands some 3 of its radii from the target begins to shrink, within the
#   100 steps that are the limit; from about 10 radii on it shrinks to a point in the middle of the target within 3 steps, and the
#   run ends without a warning. Clouds that stand in each other are registered, also 1,000 from the origin. So take the means off
#   first.
# Output seen (200 points, standard normal, whose radius is 1.7; the target is moved along x):
#   0 apart: scale 1, largest error 4e-15, after 31 steps
#   6 apart: scale 0.46, largest error 2e+00, after 100 steps
#   20 apart: scale 0.0075, largest error 4e+00, after 3 steps
#   1000 apart: scale 3e-06, largest error 4e+00, after 3 steps
#   0 apart, both 1000 from the origin: scale 1, largest error 2e-13, after 31 steps
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy==2.3.5 pycpd==2.0.0
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from pycpd import RigidRegistration

source = np.random.default_rng(0).normal(size=(200, 3))
c, s = np.cos(0.3), np.sin(0.3)
turned = source @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T


def register(target, source):
    run = RigidRegistration(X=target, Y=source)
    moved, (scale, _, _) = run.register()
    return scale, np.abs(moved - target).max(), run.iteration


for apart in (0, 6, 20, 1000):
    scale, error, steps = register(turned + [apart, 0, 0], source)
    print(f"{apart} apart: scale {scale:.2g}, largest error {error:.0e}, after {steps} steps")
    assert (abs(scale - 1) < 1e-6 and error < 1e-6) if apart == 0 else (scale < 0.95 and error > 0.1)
    assert apart < 20 or (scale < 0.02 and steps < 10)
scale, error, steps = register(turned + [1000, 0, 0], source + [1000, 0, 0])
print(f"0 apart, both 1000 from the origin: scale {scale:.2g}, largest error {error:.0e}, after {steps} steps")
assert abs(scale - 1) < 1e-6 and error < 1e-6
PY
