#!/bin/bash
# torcheval 0.0.7 (torch 2.13.0): top-k accuracy of a network that has nothing to say.
#
# Guess: where all scores of a cloud are equal, or NaN, top-5 accuracy over 40 classes is chance, 5 of 40, or 0; top-1 accuracy has
#   that already (the first class is taken).
# Behaviour: for k > 1 a target counts as found if fewer than k scores are strictly larger than its own, and no score is larger than
#   an equal one or than NaN. So a network whose weights became NaN, or that gives every cloud the same scores, as one does that a
#   norm has collapsed, has 100 %; and so has one whose scores bfloat16 has rounded to the same number. hit_rate and
#   reciprocal_rank say 1 as well, hit_rate for k = 1 too.
# Output seen (200 clouds, 5 of each of 40 classes):
#   all NaN: top-1 0.025, top-2 1.000, top-5 1.000, hit rate at 1 1.000, reciprocal rank 1.000
#   all equal: top-1 0.025, top-2 1.000, top-5 1.000, hit rate at 1 1.000, reciprocal rank 1.000
#   random around 100, in bfloat16: top-5 1.000, in float32 0.140
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
"$folder/venv/bin/pip" install -q torcheval==0.0.7
cd "$folder"
venv/bin/python - <<'PY'
import warnings

import torch
from torcheval.metrics import functional as score

warnings.simplefilter("ignore")
labels = torch.arange(40).repeat(5)
for name, value in (("all NaN", float("nan")), ("all equal", 0.0)):
    scores = torch.full((200, 40), value)
    top = [score.multiclass_accuracy(scores, labels, k=k).item() for k in (1, 2, 5)]
    hits = score.hit_rate(scores, labels, k=1).mean().item()
    rank = score.reciprocal_rank(scores, labels).mean().item()
    print(f"{name}: top-1 {top[0]:.3f}, top-2 {top[1]:.3f}, top-5 {top[2]:.3f}, hit rate at 1 {hits:.3f}, reciprocal rank {rank:.3f}")
    assert abs(top[0] - 1 / 40) < 1e-6 and top[1:] == [1, 1] and hits == rank == 1
scores = 100 + 0.01 * torch.randn(200, 40, generator=torch.Generator().manual_seed(0))
rounded = score.multiclass_accuracy(scores.bfloat16(), labels, k=5).item()
exact = score.multiclass_accuracy(scores, labels, k=5).item()
print(f"random around 100, in bfloat16: top-5 {rounded:.3f}, in float32 {exact:.3f}")
assert rounded == 1 and abs(exact - 0.125) < 0.1
PY
