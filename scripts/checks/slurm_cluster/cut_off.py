"""`python -m scripts.checks.slurm_cluster.cut_off`: torchrun over three machines, of which one is cut off.

Its cable is out for ten seconds, and then for good; the run goes on with `--resume` when it is back. It must end with
the weights, metrics and results of one that nothing happened to, bit for bit. Linux, as root, and while no cluster of
`slurm_cluster` runs: the machines are the same.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scripts.checks.inject_faults.bench import ROOT, write_clouds
from scripts.checks.inject_faults.outcome import differs, outcome
from scripts.checks.slurm_cluster import hosts
from scripts.checks.slurm_cluster.faults import SETTINGS

PATIENCE = 600.0  # seconds after which something counts as hanging
TORCHRUN = ["--nnodes", "3", "--nproc-per-node", "1"]
TORCHRUN += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "node1:29400", "--rdzv-id", "run"]


def wait(condition: Callable[[], bool]) -> float:
    """Return the seconds until it holds."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() > begun + PATIENCE:
            raise SystemExit(f"error: hung for {PATIENCE:.0f} s.")
        time.sleep(0.1)
    return time.monotonic() - begun


def main() -> int:
    hosts.require("ip", "unshare")
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_clouds(work / "data/modelnet10_ply_hdf5_2048")
        train = [str(ROOT / "main.py"), "train", *SETTINGS, "--data-root", str(work / "data"), "--out", str(work)]
        alone = [sys.executable, *train, "--name", "alone", "--devices", "3"]
        subprocess.run(alone, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        hosts.remove()
        hosts.make(3)

        def start(*more: str) -> list["subprocess.Popen[bytes]"]:
            command = [sys.executable, "-m", "torch.distributed.run", *TORCHRUN, *train, "--name", "run", *more]
            log = open(work / "log", "a")  # noqa: SIM115
            return [
                subprocess.Popen(hosts.on(name, command), stdout=log, stderr=log, cwd=ROOT)
                for name in hosts.names(3)[1:]
            ]

        def epochs() -> int:
            path = work / "run/metrics.jsonl"
            return path.read_bytes().count(b"\n") if path.exists() else 0

        try:
            running = start()
            wait(lambda: epochs() > 2)
            hosts.connect("node3", up=False)
            before = epochs()
            time.sleep(10)
            hosts.connect("node3", up=True)
            print(f"cut off for 10 s: goes on {wait(lambda: epochs() > before + 1):.0f} s later", flush=True)
            hosts.connect("node3", up=False)
            ended = wait(lambda: all(process.poll() is not None for process in running[:2]))
            print(f"cut off for good: the two others end after {ended:.0f} s, in epoch {epochs() + 1}", flush=True)
            print(*{line for line in (work / "log").read_text().splitlines() if line.startswith("error: ")}, sep="\n")
            hosts.kill("node3")
            hosts.connect("node3", up=True)
            codes = [process.wait(PATIENCE) for process in start("--resume")]
            difference = differs(outcome(work / "run"), outcome(work / "alone"))
            print(f"--resume ends with {codes}:", difference or "the same bits as one left alone")
        finally:
            hosts.remove()
    return 1 if difference or any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
