#!/bin/bash
# pypcd4 1.5.1: colours in an ASCII PCD file.
#
# Guess: a cloud saved with Encoding.ASCII and read again has the colours that it had, as in the binary encodings.
# Behaviour: PCD packs a colour into the bits of a float32, which are a number near 1e-38; the ASCII writer prints ten decimals
#   of it, 0.0000000000, so every colour is black afterwards. (Coordinates below 1e-10 go the same way.)
# Output seen:
#   BINARY [255, 128, 7]
#   BINARY_COMPRESSED [255, 128, 7]
#   ASCII [0, 0, 0]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pypcd4==1.5.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
from pypcd4 import Encoding, PointCloud

colour = np.array([[255, 128, 7]] * 2, dtype=np.uint8)
cloud = PointCloud.from_xyzrgb_points(np.column_stack([np.ones((2, 3), np.float32), PointCloud.encode_rgb(colour)]))
found = {}
for encoding in (Encoding.BINARY, Encoding.BINARY_COMPRESSED, Encoding.ASCII):
    cloud.save("cloud.pcd", encoding=encoding)
    found[encoding.name] = PointCloud.decode_rgb(PointCloud.from_path("cloud.pcd").pc_data["rgb"])[0].tolist()
    print(encoding.name, found[encoding.name])
assert found["BINARY"] == found["BINARY_COMPRESSED"] == [255, 128, 7] and found["ASCII"] == [0, 0, 0]
PY
