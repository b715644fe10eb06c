#!/bin/bash
# torchmetrics 1.9.0 on torch 2.13.0: mean class accuracy (mAcc), `MulticlassAccuracy(num_classes, average="macro")`, its default.
#
# Guess: the mean, over the classes that the test clouds have, of the share of each that is answered rightly. So scikit-learn's
#   balanced_accuracy_score has it (it warns of the rest) and torcheval's MulticlassAccuracy(average="macro").
# Behaviour: a class of which there is no cloud counts as one with accuracy 0 as soon as one cloud is answered so, and not at all
#   otherwise. On a test set that lacks classes (a subset, a few rooms, one batch while training) one more wrong answer then
#   lowers mAcc by more or less according to which wrong answer it is, and adding classes to a network that nobody tests lowers it.
# Output seen (50 clouds of each of classes 0 to 3, num_classes=8, ten clouds of class 3 answered wrongly):
#   as class 0: torchmetrics 0.9500, scikit-learn 0.9500, torcheval 0.9500
#   as class 4: torchmetrics 0.7600, scikit-learn 0.9500, torcheval 0.9500
#   as 4, 5, 6, 7: torchmetrics 0.4750, scikit-learn 0.9500, torcheval 0.9500
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 torchmetrics==1.9.0 torcheval==0.0.7 scikit-learn==1.8.0 numpy==2.4.6
cd "$folder"
venv/bin/python -W ignore - <<'PY'
import torch
import torcheval.metrics
import torchmetrics.classification
from sklearn.metrics import balanced_accuracy_score

labels = torch.arange(4).repeat_interleave(50)
found = {}
for name, wrong in (("class 0", [0]), ("class 4", [4]), ("4, 5, 6, 7", [4, 5, 6, 7])):
    answers = labels.clone()
    answers[-10:] = torch.tensor(wrong).repeat(10)[:10]
    ours = torchmetrics.classification.MulticlassAccuracy(8)(answers, labels).item()
    other = torcheval.metrics.MulticlassAccuracy(average="macro", num_classes=8)
    other.update(answers, labels)
    found[name] = (ours, balanced_accuracy_score(labels, answers), other.compute().item())
    print("as {}: torchmetrics {:.4f}, scikit-learn {:.4f}, torcheval {:.4f}".format(name, *found[name]))
assert all(round(value, 4) == 0.95 for values in found.values() for value in values[1:])
assert [round(values[0], 4) for values in found.values()] == [0.95, 0.76, 0.475]
PY
