#!/bin/bash
# torch_geometric 2.8.1 on torch 2.13.0: faces that `torch_geometric.io.read_off` (so torch_geometric.datasets.ModelNet) reads.
#
# Guess: polygons are split into triangles, and the colour that may follow a face's vertices is left out.
# Behaviour: triangles and quadrilaterals are kept and every other polygon is dropped without a word: a mesh of pentagons has no
#   faces at all. Of coloured triangles all numbers become vertices: `face` has six rows instead of three, and its last
#   three are colours (255 of a mesh with 4 vertices).
# Output seen:
#   a triangle and a pentagon: 1 triangle of 4
#   coloured triangles: face has shape (6, 2), largest vertex 255 of 4
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torch_geometric==2.8.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
from torch_geometric.io import read_off

corners = "0 0 0\n1 0 0\n1 1 0\n0.5 2 0\n0 1 0\n"
with open("polygons.off", "w") as file:
    file.write("OFF\n5 2 0\n" + corners + "3 0 1 2\n5 0 1 2 3 4\n")
with open("coloured.off", "w") as file:
    file.write("OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2 255 0 0\n3 0 2 3 0 255 0\n")
polygons, coloured = read_off("polygons.off").face, read_off("coloured.off").face
print("a triangle and a pentagon:", polygons.shape[1], "triangle of 4")
print(f"coloured triangles: face has shape {tuple(coloured.shape)}, largest vertex {int(coloured.max())} of 4")
assert tuple(polygons.shape) == (3, 1) and tuple(coloured.shape) == (6, 2) and int(coloured.max()) == 255
PY
