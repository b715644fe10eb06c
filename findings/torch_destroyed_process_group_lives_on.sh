#!/bin/bash
# torch 2.13.0 (gloo, CPU): what is left of a process group that was destroyed.
#
# Guess: torch.distributed.destroy_process_group() ends the group's threads and closes its connections, whatever was computed while
#   there was one.
# Behaviour: it does so only where nothing else holds the group. The first optimizer of a process, and the
#   first collective under a TorchDispatchMode (here torch.utils.flop_counter.FlopCounterMode), import
#   torch.distributed.nn.functional, ten functions of which take the group of that moment as their default argument, and keep it:
#   so after init_process_group() and torch.optim.Adam(), the usual order, gloo's threads live on until the process ends, also
#   while it ends. Importing torch.distributed.nn.functional before there is a group helps. (Linux alone: threads are read from /proc.)
# Output seen (threads by name, after destroy_process_group() and a garbage collection):
#   a sum alone: none of gloo's
#   an optimizer in between: gloo_tcp_loop, pt_gloo_runloop, pt_gloo_runloop
#   that, torch.distributed.nn.functional imported before: none of gloo's
#   a sum whose operations are counted: gloo_tcp_loop, pt_gloo_runloop, pt_gloo_runloop
#   counted, torch.distributed.nn.functional imported before: none of gloo's
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0 numpy
cd "$folder"
cat > lives.py <<'PY'
import gc
import sys
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch.utils.flop_counter import FlopCounterMode

case = sys.argv[1]
if case.endswith("imported before"):
    import torch.distributed.nn.functional
dist.init_process_group("gloo", init_method=f"file://{Path.cwd() / sys.argv[2]}", rank=0, world_size=1)
counted = "counted" in case
with FlopCounterMode(display=False) if counted else nullcontext():
    dist.all_reduce(torch.ones(1))
if case in ("an optimizer in between", "that, torch.distributed.nn.functional imported before"):
    torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
dist.destroy_process_group()
gc.collect()
names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
alive = sorted(name for name in names if "gloo" in name)
print(f"{case}: {', '.join(alive) or 'none of gloo' + chr(39) + 's'}", flush=True)
assert bool(alive) == (case in ("an optimizer in between", "a sum whose operations are counted"))
PY
venv/bin/python lives.py "a sum alone" 1
venv/bin/python lives.py "an optimizer in between" 2
venv/bin/python lives.py "that, torch.distributed.nn.functional imported before" 3
venv/bin/python lives.py "a sum whose operations are counted" 4
venv/bin/python lives.py "counted, torch.distributed.nn.functional imported before" 5
