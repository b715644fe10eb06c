#!/bin/bash
# Open3D 0.20.0: an .obj of quadrilaterals, as modelling programs export them, by read_triangle_mesh.
#
# Guess: quadrilaterals become two triangles each, as in its reader of .off, and a number may be written `.5`.
# Behaviour: every face that is no triangle is left out, so a mesh of quadrilaterals is empty, vertices and all; a line on
#   standard output says that it "skips" them. With one coordinate written `.5` for `0.5` the whole file is not read: a warning,
#   no exception, an empty mesh.
# Output seen:
#   .off with a quadrilateral: 2 triangles
#   .obj with a quadrilateral: 0 triangles, 0 vertices
#   .obj with a triangle, 0.5: 1 triangles; .5: 0 triangles, 0 vertices
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q open3d==0.20.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import open3d as o3d


def read(name, text):
    with open(name, "w") as file:
        file.write(text)
    mesh = o3d.io.read_triangle_mesh(name)
    return len(mesh.triangles), len(mesh.vertices)


off = read("a.off", "OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n")
obj = read("a.obj", "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\n")
whole, short = (read("b.obj", f"v 0 0 0\nv 1 0 0\nv {half} 1 0\nf 1 2 3\n") for half in ("0.5", ".5"))
print(".off with a quadrilateral:", off[0], "triangles")
print(".obj with a quadrilateral:", obj[0], "triangles,", obj[1], "vertices")
print(".obj with a triangle, 0.5:", whole[0], "triangles; .5:", short[0], "triangles,", short[1], "vertices")
assert off[0] == 2 and obj == (0, 0) and whole[0] == 1 and short == (0, 0)
PY
