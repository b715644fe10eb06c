#!/bin/bash
# fpsample 1.0.2: farthest point sampling from a given point, `bucket_fps_kdline_sampling(cloud, n, h=5, start_idx=i)`.
#
# Guess: the point of `start_idx`, "the starting index of sampling", comes first, as with `fps_sampling`; and since both are
#   exact, both give the same points from the same start.
# Behaviour: the two samplers with buckets begin at other points than asked for: of 1,000 starts most are not in their sample at
#   all. Farthest points they are, of another start. So a sample that is to hold a given point does not, and results of
#   the exact and the quick function cannot be compared point by point. `fps_sampling` does as told.
# Output seen (1,000 points, samples of 16, each point once as start: how often it is first, how often it is there at all):
#   fps_sampling: first 1000, there 1000
#   bucket_fps_kdtree_sampling: first 0, there 12
#   bucket_fps_kdline_sampling: first 41, there 59
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q fpsample==1.0.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import fpsample
import numpy as np

cloud = np.random.default_rng(0).random((1000, 3)).astype(np.float32)
found = {}
for name, options in (
    ("fps_sampling", {}),
    ("bucket_fps_kdtree_sampling", {}),
    ("bucket_fps_kdline_sampling", {"h": 5}),
):
    samples = [getattr(fpsample, name)(cloud, 16, start_idx=start, **options).tolist() for start in range(1000)]
    first = sum(sample[0] == start for start, sample in enumerate(samples))
    there = sum(start in sample for start, sample in enumerate(samples))
    found[name] = (first, there)
    print(f"{name}: first {first}, there {there}")
assert found.pop("fps_sampling") == (1000, 1000)
assert all(first < 50 and there < 100 for first, there in found.values())
PY
