#!/bin/bash
# pycpd 2.0.0: rigid registration of a cloud with the same cloud, turned by 17 degrees and moved.
#
# Guess: coherent point drift brings the centres of both clouds together first, or finds the shift however long it is; the scale
#   that it finds is 1.
# Behaviour: nothing is centred or normalised. From some 3 to 10 radii on, the source shrinks to a point in the middle of the
#   target, and the run ends as converged after 3 steps, without a warning: scale 0.01 at 10 m, 1e-6 at a kilometre, for a shape
#   of about a metre. Clouds that stand in each other are registered to the last digit, wherever both are. So take the means off
#   first.
# Output seen (200 points, standard normal; `apart` is added to the target alone):
#   apart 0: scale 1, largest error 0.0
#   apart 10: scale 0.01, largest error 3.8, after 3 steps
#   apart 1000: scale 1e-06, largest error 3.8, after 3 steps
#   apart 0, both 1000 from the origin: scale 1, largest error 0.0
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


for apart in (0, 10, 1000):
    scale, error, steps = register(turned + apart, source)
    print(f"apart {apart}: scale {scale:.2g}, largest error {error:.1f}" + (f", after {steps} steps" if apart else ""))
    assert (abs(scale - 1) < 1e-6 and error < 1e-6) if apart == 0 else (scale < 0.1 and error > 3 and steps < 10)
scale, error, _ = register(turned + 1000, source + 1000)
print(f"apart 0, both 1000 from the origin: scale {scale:.2g}, largest error {error:.1f}")
assert abs(scale - 1) < 1e-6 and error < 1e-6
PY
