#!/bin/bash
# h5py 3.16.0 (HDF5 2.0.0): several files of clouds, as ModelNet40's, read as one by a virtual dataset (`create_virtual_dataset`).
#
# Guess: where one of the files is not there (not copied along, or renamed), reading it is an error.
# Behaviour: its clouds are read as zeros, and its labels as 0, which is a real class. The shape is that of the whole set, and nothing
#   says that a file was missing.
# Output seen (two files of two clouds, labels 3 and 5; then the second is moved away):
#   both files: labels [3, 3, 5, 5], largest coordinates [1.0, 1.0, 1.0, 1.0]
#   one moved: labels [3, 3, 0, 0], largest coordinates [1.0, 1.0, 0.0, 0.0]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q h5py==3.16.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import os

import h5py
import numpy as np

LABELS = (3, 5)
points = h5py.VirtualLayout((4, 10, 3), "f4")
labels = h5py.VirtualLayout((4,), "u1")
for i, label in enumerate(LABELS):
    with h5py.File(f"train{i}.h5", "w") as file:
        file["data"] = np.ones((2, 10, 3), "f4")
        file["label"] = np.full(2, label, "u1")
    points[2 * i : 2 * i + 2] = h5py.VirtualSource(f"train{i}.h5", "data", (2, 10, 3))
    labels[2 * i : 2 * i + 2] = h5py.VirtualSource(f"train{i}.h5", "label", (2,))
with h5py.File("train.h5", "w") as file:
    file.create_virtual_dataset("data", points)
    file.create_virtual_dataset("label", labels)
found = []
for name in ("both files", "one moved"):
    with h5py.File("train.h5") as file:
        found.append((file["label"][:].tolist(), file["data"][:].max((1, 2)).tolist()))
    print("{}: labels {}, largest coordinates {}".format(name, *found[-1]))
    os.makedirs("elsewhere", exist_ok=True)
    if os.path.exists("train1.h5"):
        os.rename("train1.h5", "elsewhere/train1.h5")
assert found == [([3, 3, 5, 5], [1, 1, 1, 1]), ([3, 3, 0, 0], [1, 1, 0, 0])]
PY
