#!/bin/bash
# Open3D 0.20.0: float64 coordinates of a map projection, written by write_point_cloud and read again.
#
# Guess: the files that hold numbers as text keep at least as much as binary ones; .ply says `property double`.
# Behaviour: .xyz keeps everything, binary .ply too; but ASCII .ply, which says double, prints six digits: points 5,000 km north
#   move by metres. Of the two .pcd the ASCII one keeps half a millimetre, the binary one is float32.
# Output seen (off by, metres):
#   xyz 0.0000; ply binary 0.0000; ply ascii 3.8994; pcd ascii 0.0005; pcd binary 0.2498
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q open3d==0.20.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import numpy as np
import open3d as o3d

points = np.random.default_rng(0).normal(size=(1000, 3)) + [450_000, 5_000_000, 100]
cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
off = {}
for ending, ascii in (("xyz", True), ("ply", False), ("ply", True), ("pcd", True), ("pcd", False)):
    o3d.io.write_point_cloud(f"a.{ending}", cloud, write_ascii=ascii)
    name = ending if ending == "xyz" else f"{ending} {'ascii' if ascii else 'binary'}"
    off[name] = np.abs(np.asarray(o3d.io.read_point_cloud(f"a.{ending}").points) - points).max()
print("; ".join(f"{name} {value:.4f}" for name, value in off.items()))
assert off["ply ascii"] > 1 and off["pcd binary"] > 0.2 > 0.01 > off["pcd ascii"] and off["xyz"] < 1e-6
PY
