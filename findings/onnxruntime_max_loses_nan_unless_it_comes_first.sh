#!/bin/bash
# onnxruntime 1.32.0 on the CPU, onnx 1.23.2: the maximum over a cloud's points, ReduceMax, and the class with the highest
# score, ArgMax, where one value is NaN, as of a broken point.
#
# Guess: NaN comes out, as from numpy and from onnx's own reference, so a check of the output finds it.
# Behaviour: it depends on where NaN stands. As the first value it stays; anywhere else it is passed over, and the maximum of the others
#   is the answer. So a broken point shows or not by its place in the file.
# Output seen:
#   [nan, 1, 2]: ReduceMax nan, ArgMax 0; reference nan, 0
#   [1, nan, 2]: ReduceMax 2.0, ArgMax 2; reference nan, 1
#   [1, 2, nan]: ReduceMax 2.0, ArgMax 1; reference nan, 2
#   1,024 points, NaN at 0, 1, 500, 1,023: ReduceMax is nan in 1 of 4
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PY'
import math

import numpy as np
import onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator


def maxima(rows, columns):
    """A model of the maxima of rows, and of where they are."""
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["x"], ["highest"], axes=[1], keepdims=0),
            helper.make_node("ArgMax", ["x"], ["place"], axis=1, keepdims=0),
        ],
        "maxima",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, columns])],
        [
            helper.make_tensor_value_info("highest", TensorProto.FLOAT, [rows]),
            helper.make_tensor_value_info("place", TensorProto.INT64, [rows]),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)


def run(model, x):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})


model = maxima(3, 3)
x = np.array([[math.nan, 1, 2], [1, math.nan, 2], [1, 2, math.nan]], np.float32)
highest, place = run(model, x)
right_highest, right_place = ReferenceEvaluator(model).run(None, {"x": x})
for row in zip(x, highest, place, right_highest, right_place):
    values = ", ".join(f"{value:g}" for value in row[0])
    print("[{}]: ReduceMax {}, ArgMax {}; reference {}, {}".format(values, *row[1:]))
cloud = np.random.default_rng(0).random((4, 1024)).astype(np.float32)
for row, point in zip(cloud, (0, 1, 500, 1023)):
    row[point] = math.nan
shown = np.isnan(run(maxima(4, 1024), cloud)[0]).tolist()
print(f"1,024 points, NaN at 0, 1, 500, 1,023: ReduceMax is nan in {sum(shown)} of 4")
assert shown == [True, False, False, False]
assert np.isnan(right_highest).all() and right_place.tolist() == [0, 1, 2]
assert np.isnan(highest[0]) and highest[1:].tolist() == [2, 2] and place[1:].tolist() == [2, 1]
PY
