"""`python -m scripts.checks.slurm_cluster.bad_starts`: what a run on two nodes says where it cannot start.

On a running cluster. Each must end within a minute, with one sentence of its first process. Prints a table; ends with 1
where that is not so.
"""

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import tyro

from dgcnn_ws.text_table import markdown
from scripts.checks.inject_faults.bench import ROOT, write_clouds
from scripts.checks.slurm_cluster import hosts
from scripts.checks.slurm_cluster.cluster import Cluster
from scripts.checks.slurm_cluster.faults import SETTINGS

PORT = "29801"
LONGEST = 60.0  # seconds
LISTEN = f"import socket, time; s = socket.create_server(('', {PORT})); time.sleep(600)"
HERE = "python main.py train $0 --name run --data-root data"  # what each process does, where nothing is wrong
KINDS = {
    "a node list that leads nowhere": f"SLURM_NODELIST=nowhere[1-2] {HERE}",
    "a host that cannot be reached": f"MASTER_ADDR=10.203.7.99 {HERE}",
    "a port in use": f"MASTER_PORT={PORT} {HERE}",
    "processes of two versions": f"if [ $SLURM_PROCID = 1 ]; then cd other; fi; {HERE}",
    "one that never comes": f"if [ $SLURM_PROCID = 1 ]; then exec sleep 600; fi; {HERE}",
    "other training data": f"{HERE}$SLURM_PROCID",
    "other run folders": f"{HERE} --resume --out runs$SLURM_PROCID",
}


@dataclass(frozen=True)
class Arguments:
    folder: Path = Path("/var/tmp/slurm_cluster")
    """The cluster's, which is running."""


def prepare(work: Path) -> None:
    """Make two data sets, two states of a run and two versions of the program."""
    shutil.rmtree(work, ignore_errors=True)
    for data in ("data", "data0", "data1"):
        write_clouds(work / data / "modelnet10_ply_hdf5_2048")
    with h5py.File(work / "data1/modelnet10_ply_hdf5_2048/train.h5", "r+") as file:
        file["data"][0, 0] = 0.5
    for place in (work, work / "other"):
        shutil.copytree(ROOT / "dgcnn_ws", place / "dgcnn_ws", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "main.py", place)
    with open(work / "other/dgcnn_ws/errors.py", "a") as file:
        file.write("# another version\n")
    train = [sys.executable, "main.py", "train", *SETTINGS, "--name", "run", "--data-root", "data", "--devices", "2"]
    subprocess.run([*train, "--out", "runs0"], cwd=work, check=True, capture_output=True)
    (work / "runs0/run/results.json").unlink()
    shutil.copytree(work / "runs0", work / "runs1")
    (work / "runs1/run/last.pt").unlink()


def main() -> int:
    args = tyro.cli(Arguments, description=__doc__)
    cluster = Cluster(args.folder)
    work = cluster.folder / "starts"
    prepare(work)
    listener = subprocess.Popen(hosts.on("node1", [sys.executable, "-c", LISTEN]))
    rows, failed = [["what is wrong", "ends with", "s", "what it says"]], False
    path = f"PATH={Path(sys.executable).parent}:/usr/bin:/bin"
    for kind, script in KINDS.items():
        command = ["env", path, "OMP_NUM_THREADS=1", "srun", "--wait", "15", "--nodes", "2", "--ntasks-per-node", "1"]
        command += ["--chdir", str(work), "sh", "-c", script.replace("$0", " ".join(SETTINGS))]
        begun = time.monotonic()
        done = subprocess.run(
            hosts.on(hosts.HEAD, command), env=cluster.environment(), capture_output=True, text=True, check=False
        )
        seconds = time.monotonic() - begun
        said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        failed |= len(said) != 1 or done.returncode == 0 or seconds > LONGEST or "Traceback" in done.stderr
        rows.append([kind, f"{done.returncode}", f"{seconds:.0f}", " / ".join(said) or done.stderr[-300:]])
        print(rows[-1], file=sys.stderr, flush=True)
    listener.kill()
    print("\n".join(markdown(rows)))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
