#!/bin/bash
# torch 2.13.0 (gloo, CPU): getting out of a collective operation whose other process no longer answers.
#
# Guess: ProcessGroupGloo.abort(), called by a thread that watches the others, ends the all_reduce that the main thread waits in,
#   as aborting NCCL does.
# Behaviour: abort() returns at once and the all_reduce goes on waiting until the other side closes its connection or the group's
#   time-out (30 minutes) has passed. A watcher has to end the process itself.
# Output seen (the other process sleeps 8 s and ends; abort is called after 1 s):
#   abort returned after 0.0 s; all_reduce after 8 s
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cd "$folder"
cat > abort.py <<'PY'
import os, sys, threading, time
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run(rank, results):
    dist.init_process_group("gloo", init_method="tcp://127.0.0.1:29611", rank=rank, world_size=2)
    if rank == 1:
        time.sleep(8)
        os._exit(0)
    group = dist.group.WORLD._get_backend(torch.device("cpu"))
    start = time.monotonic()
    took = []

    def abort():
        time.sleep(1)
        before = time.monotonic()
        group.abort()
        took.append(time.monotonic() - before)

    threading.Thread(target=abort).start()
    try:
        dist.all_reduce(torch.ones(1))
    except RuntimeError:
        pass
    results.put((took[0], time.monotonic() - start))
    results.close()
    results.join_thread()
    os._exit(0)


if __name__ == "__main__":
    context = mp.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=run, args=(rank, results)) for rank in range(2)]
    for process in processes:
        process.start()
    took, waited = results.get(timeout=120)
    print(f"abort returned after {took:.1f} s; all_reduce after {waited:.0f} s")
    assert took < 2 and waited > 5
PY
venv/bin/python abort.py
