#!/bin/bash
# point-cloud-utils 0.34.0: ModelNet's .off files, hundreds of which run the first two lines together ("OFF490 518 0").
#
# Guess: such a file is read as the same mesh, as trimesh does, or refused, as Open3D does.
# Behaviour: the number of faces is taken for the number of vertices, the missing points are made of the face lines, and there are
#   no faces. Nothing is raised: a cloud with wrong points in it comes back. (A line for debugging is printed at every load.)
# Output seen:
#   OFF and 8 12 0 on two lines: 8 vertices, 12 faces
#   OFF8 12 0 on one line: 12 vertices, no faces
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q point-cloud-utils==0.34.0 trimesh==5.2.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import point_cloud_utils
import trimesh

box, found = trimesh.creation.box(), []
rows = ["{:.6f} {:.6f} {:.6f}".format(*vertex) for vertex in box.vertices] + ["3 {} {} {}".format(*f) for f in box.faces]
for header, words in (("OFF\n8 12 0", "OFF and 8 12 0 on two lines"), ("OFF8 12 0", "OFF8 12 0 on one line")):
    with open("box.off", "w") as file:
        file.write("\n".join([header, *rows]) + "\n")
    vertices, faces = point_cloud_utils.load_mesh_vf("box.off")
    found.append((len(vertices), 0 if faces is None else len(faces)))
    print(f"{words}: {found[-1][0]} vertices, {found[-1][1] or 'no'} faces")
assert found == [(8, 12), (12, 0)] and len(trimesh.load("box.off").faces) == 12
PY
