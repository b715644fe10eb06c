#!/bin/bash
# meshio 5.3.5: what `meshio.read` does with a mesh that it does not understand.
#
# Guess: polygons, comments and colours of an .off file are read; what is not raises meshio.ReadError, which a program
#   that converts a folder of meshes catches with `except Exception`.
# Behaviour: an .off file with a pentagon is not read, and meshio.read calls sys.exit(1): SystemExit is no Exception, so it
#   passes every such handler and ends the program in the middle of the folder.
# Output seen:
#   one pentagon: SystemExit, caught by `except Exception`: False
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q meshio==5.3.5 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import meshio

with open("pentagon.off", "w") as file:
    file.write("OFF\n5 1 0\n0 0 0\n1 0 0\n1 1 0\n0.5 2 0\n0 1 0\n5 0 1 2 3 4\n")
caught = ended = False
try:
    meshio.read("pentagon.off")
except Exception:
    caught = True
except SystemExit:
    ended = True
print("one pentagon:", "SystemExit," if ended else "no exit,", "caught by `except Exception`:", caught)
assert ended and not caught
PY
