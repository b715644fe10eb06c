"""`python -m scripts.checks.slurm_cluster.shared_folder`: a study of two machines in a folder that a network brings.

One of both is lost while it trains; the other must take over its run, and every run must end with the bits of one that
nothing happened to. Two file systems: sshfs, in which neither machine sees the other's locks, and GlusterFS, in which
they do. Linux with FUSE, as root, with sshfs, openssh-server, glusterfs-server and glusterfs-client of Debian, and
while no cluster of `slurm_cluster` runs: the machines are the same.
"""

import fcntl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dgcnn_ws.engine.folder.claim import SILENCE
from scripts.checks.inject_faults.bench import NETWORK, ROOT, write_clouds
from scripts.checks.inject_faults.outcome import differs, outcome
from scripts.checks.slurm_cluster import hosts
from scripts.checks.slurm_cluster.cut_off import wait

GRID = ["--norms", "gn,ws_gn", "--micro-batches", "8", "--seeds", "2", "--epochs", "60"]
SSHD = """\
Port 2299
HostKey {work}/key
AuthorizedKeysFile {work}/key.pub
StrictModes no
PidFile {work}/sshd.pid
Subsystem sftp internal-sftp
PermitRootLogin yes
"""
GLUSTERD = """\
volume management
    type mgmt/glusterd
    option working-directory {work}/state
    option run-directory {work}
    option transport-type socket
end-volume
"""


def on(name: str, *command: str) -> str:
    """Run a command that mounts something: on a machine's network, but among all machines' files."""
    network = ["nsenter", f"--net=/run/netns/{hosts.space(name)}", *command]
    return subprocess.run(network, check=True, stdout=subprocess.PIPE, text=True).stdout


def mount_sshfs(work: Path, places: dict[str, Path]) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(work / "key")], check=True)
    (work / "sshd.conf").write_text(SSHD.format(work=work))
    Path("/run/sshd").mkdir(exist_ok=True)
    (work / "served").mkdir()
    on("head", "/usr/sbin/sshd", "-f", str(work / "sshd.conf"))
    options = f"IdentityFile={work}/key,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null"
    for name, place in places.items():
        on(name, "sshfs", "-p", "2299", "-o", options, f"root@{hosts.address('head')}:{work}/served", str(place))


def mount_glusterfs(work: Path, places: dict[str, Path]) -> None:
    (work / "glusterd.vol").write_text(GLUSTERD.format(work=work))
    (work / "state").mkdir()
    on("head", "glusterd", "-f", f"{work}/glusterd.vol", "-l", f"{work}/glusterd.log", "-p", f"{work}/glusterd.pid")
    time.sleep(3)
    server = hosts.address("head")
    for words in (f"create shared {server}:{work}/served force", "start shared"):
        on("head", "gluster", "--mode=script", "volume", *words.split())
    for name, place in places.items():
        on(name, "glusterfs", f"--volfile-server={server}", "--volfile-id=shared", str(place))
        wait(lambda place=place: place.is_mount())  # type: ignore[misc]


def locks_reach(places: dict[str, Path]) -> bool:
    """Whether a lock that one machine takes is seen by the other."""
    one, other = (place / "lock" for place in places.values())
    with open(one, "a") as held, open(other, "a") as wanted:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            fcntl.flock(wanted, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def holder(run: Path) -> str:
    """Return the machine that holds a run, "" for none."""
    claims = sorted(run.glob("claim.*"), key=lambda path: int(path.suffix[1:]))
    return claims[-1].read_text().split()[0] if claims else ""


def lose_one(kind: str, work: Path) -> str:
    """Let both machines train a study and end one; return what there is to say of it."""
    places = {name: work / name for name in ("node1", "node2")}
    for place in places.values():
        place.mkdir()
    (mount_sshfs if kind == "sshfs" else mount_glusterfs)(work, places)
    write_clouds(work / "data/modelnet10_ply_hdf5_2048")
    common = [sys.executable, str(ROOT / "main.py"), "compare", "--dataset", "modelnet10", "--device", "cpu", *NETWORK]
    common += [*GRID, "--data-root", str(work / "data")]
    with open(work / "alone.log", "w") as log:
        subprocess.run([*common, "--out", str(work / "alone")], stdout=log, stderr=log, check=True)
    running = {}
    for name, place in places.items():
        log = open(work / f"{name}.log", "w")  # noqa: SIM115
        running[name] = subprocess.Popen(hosts.on(name, [*common, "--out", str(place)]), stdout=log, stderr=log)
    study = places["node1"] / "study"

    def held_by(name: str) -> list[Path]:
        return [run for run in study.glob("*/") if holder(run) == name and not (run / "results.json").exists()]

    wait(lambda: bool(held_by("node1")) and any((run / "metrics.jsonl").exists() for run in held_by("node2")))
    reach = locks_reach(places)
    (lost,) = held_by("node2")
    hosts.kill("node2")
    seconds = wait(lambda: holder(lost) == "node1")
    code = running["node1"].wait()
    runs = sorted(path.parent.name for path in (work / "alone/study").glob("*/results.json"))
    different = [name for name in runs if differs(outcome(study / name), outcome(work / "alone/study" / name))]
    assert len(runs) == 4
    said = f"ended with {code}, other bits in {different or 'no run'}, taken over after {seconds:.0f} s"
    if code or different or seconds > SILENCE + 40:
        raise SystemExit(f"error: {kind}: {said}")
    return f"{kind}: locks {'reach' if reach else 'do not reach'} the other machine; {said}"


def main() -> None:
    hosts.require("ip", "unshare", "nsenter", "sshfs", "ssh-keygen", "glusterd", "gluster")
    for kind in ("sshfs", "glusterfs"):
        hosts.remove()
        hosts.make(2)
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(lose_one(kind, Path(folder)), flush=True)
            finally:
                hosts.remove()
                for name in ("node1", "node2"):
                    subprocess.run(["umount", "-l", f"{folder}/{name}"], stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
