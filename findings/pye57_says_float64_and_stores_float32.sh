#!/bin/bash
# pye57 0.4.19: a laser scan in map coordinates (float64) written to E57 and read again.
#
# Guess: E57 is the format of surveyors and knows double precision; what is written as float64 and read as float64 is the same.
# Behaviour: write_scan_raw stores cartesianX, Y and Z in single precision. What comes back is called float64 and is off by up to
#   a quarter of a metre at 5,000 km north, so the type gives no hint of it.
# Output seen:
#   read as float64, off by 0.25 m
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pye57==0.4.19 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import pye57

points = np.random.default_rng(0).normal(size=(1000, 3)) + [450_000, 5_000_000, 100]
file = pye57.E57("scan.e57", mode="w")
file.write_scan_raw({f"cartesian{axis}": points[:, i] for i, axis in enumerate("XYZ")})
file.close()
found = pye57.E57("scan.e57").read_scan_raw(0)["cartesianY"]
off = np.abs(found - points[:, 1]).max()
print(f"read as {found.dtype}, off by {off:.2f} m")
assert found.dtype == np.float64 and off > 0.2
PY
