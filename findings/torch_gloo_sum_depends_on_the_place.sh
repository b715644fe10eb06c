#!/bin/bash
# torch 2.13.0 (gloo, CPU): the sum of three processes' gradients.
#
# Guess: all_reduce adds the processes' numbers in the order of their ranks (or any other order, but one), so that an element's sum
#   depends on that element's numbers alone.
# Behaviour: which process begins depends on where in its tensor an element lies. Three processes that hold 1e8, 1 and -1e8
#   everywhere get 0 in two thirds of a tensor and 1 in the last. So a bucket of gradients that is laid out anew (as
#   DistributedDataParallel does after its first step, and again after a resumption) rounds otherwise, and a run that was
#   interrupted does not end with the bits of one that was not. With two processes there is one order.
# Output seen:
#   3 processes, 12 elements: 0.0 in 8 of them, 1.0 in 4
#   3 processes, 1000 elements: 0.0 in 666 of them, 1.0 in 334
#   the same three numbers as tensors of 12 and alone: [0.0, 1.0] and [0.0]
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cd "$folder"
cat > sums.py <<'PY'
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(rank, store):
    dist.init_process_group("gloo", init_method=f"file://{store}/store", rank=rank, world_size=3)
    number = [1e8, 1.0, -1e8][rank]
    found = {}
    for size in (12, 1000, 1):
        tensor = torch.full((size,), number)
        dist.all_reduce(tensor)
        found[size] = tensor
    if rank == 0:
        for size in (12, 1000):
            zeros, ones = (int((found[size] == value).sum()) for value in (0.0, 1.0))
            print(f"3 processes, {size} elements: 0.0 in {zeros} of them, 1.0 in {ones}")
            assert zeros > size / 2 and ones > size / 4 and zeros + ones == size
        both = [found[size].unique().tolist() for size in (12, 1)]
        print("the same three numbers as tensors of 12 and alone: {} and {}".format(*both))
        assert both == [[0.0, 1.0], [0.0]]
    dist.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as store:
        mp.spawn(run, (store,), nprocs=3)
PY
venv/bin/python sums.py
