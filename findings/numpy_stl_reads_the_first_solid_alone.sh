#!/bin/bash
# numpy-stl 4.1.1: reading a text STL of several solids, as CAD programs write an assembly's parts.
#
# Guess: `Mesh.from_file` reads the file's triangles, of all solids; or says that there is more.
# Behaviour: it stops at the first `endsolid` and says nothing; `Mesh.from_multi_file` must be asked for the others. Bounds, volume
#   and samples are then those of one part.
# Output seen (a file of 3 solids, a triangle each): from_file: 1 triangles, z up to 0; from_multi_file: 3 triangles, z up to 2
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy-stl==4.1.1 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
from stl.mesh import Mesh

with open("parts.stl", "w") as file:
    for z in range(3):
        corners = "".join(f"vertex {x} {y} {z}\n" for x, y in ((0, 0), (1, 0), (0, 1)))
        file.write(f"solid part{z}\nfacet normal 0 0 1\nouter loop\n{corners}endloop\nendfacet\nendsolid part{z}\n")
one = [Mesh.from_file("parts.stl")]
each = list(Mesh.from_multi_file("parts.stl"))
found = []
for name, meshes in (("from_file", one), ("from_multi_file", each)):
    found.append((sum(len(mesh.vectors) for mesh in meshes), max(mesh.z.max() for mesh in meshes)))
    print("{}: {} triangles, z up to {:.0f}".format(name, *found[-1]))
assert found == [(1, 0), (3, 2)]
PY
