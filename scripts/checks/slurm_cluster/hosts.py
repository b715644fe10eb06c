"""Machines that are one: network namespaces with addresses and names of their own, joined by a bridge."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from scripts.checks.slurm_cluster.cable import lay

BRIDGE = "cloudbr"
NETWORK = "10.203.7"  # of addresses; the bridge itself has none
HEAD = "head"
JUMBO = "9000"  # bytes of the largest frame of a cable of ours


def names(nodes: int) -> list[str]:
    """Return the machines' names: the head, which computes nothing, and the nodes."""
    return [HEAD, *(f"node{number}" for number in range(1, nodes + 1))]


def require(*programs: str) -> None:
    """End with a sentence where this is not root on Linux, or a program is missing."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SystemExit("error: network namespaces are made on Linux, by root.")
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise SystemExit(
            f"error: {', '.join(missing)} not found. On Debian: apt-get install slurm-wlm munge iproute2 util-linux"
        )


def space(name: str) -> str:
    return f"cloud-{name}"


def make(nodes: int, rate: float | None = None, delay: float = 0.0) -> None:
    """Make the machines; each knows the others by name.

    Args:
        nodes: beside the head.
        rate: bytes/s of each one's cable; None: as fast as this machine is.
        delay: seconds of each one's cable, in each direction; needs a rate.
    """
    table = "127.0.0.1 localhost\n" + "".join(f"{address(name)} {name}\n" for name in names(nodes))
    ip("link", "add", BRIDGE, "type", "bridge")
    ip("link", "set", BRIDGE, "up")
    for name in names(nodes):
        files = Path("/etc/netns", space(name))
        files.mkdir(parents=True, exist_ok=True)
        (files / "hosts").write_text(table)
        ip("netns", "add", space(name))
        if rate is None:
            ip("link", "add", port(name), "type", "veth", "peer", "name", "eth0", "netns", space(name))
        else:
            lay(port(name), "cloudend", rate, delay)
            ip("link", "set", "cloudend", "netns", space(name), "name", "eth0", "mtu", JUMBO)
            ip("link", "set", port(name), "mtu", JUMBO)
        ip("link", "set", port(name), "master", BRIDGE, "up")
        for words in (f"addr add {address(name)}/24 dev eth0", "link set eth0 up", "link set lo up"):
            ip("-n", space(name), *words.split())


def remove() -> None:
    """Remove every machine, after ending what runs there."""
    for path in sorted(Path("/run/netns").glob(space("*"))):
        name = path.name.removeprefix(space(""))
        kill(name)
        ip("netns", "delete", space(name))
        shutil.rmtree(Path("/etc/netns", space(name)), ignore_errors=True)
        subprocess.run(["ip", "link", "delete", port(name)], stderr=subprocess.DEVNULL, check=False)
    subprocess.run(["ip", "link", "delete", BRIDGE], stderr=subprocess.DEVNULL, check=False)


def kill(name: str) -> None:
    """End with SIGKILL all that runs on a machine, as when its power fails."""
    pids = ip("netns", "pids", space(name)).split()
    if pids:
        subprocess.run(["kill", "-KILL", *pids], stderr=subprocess.DEVNULL, check=False)


def pids_of(name: str, word: str) -> list[str]:
    """Return the ids of a machine's processes with `word` on their command lines, but for its shells and srun."""
    found = []
    for pid in ip("netns", "pids", space(name)).split():
        with suppress(OSError):  # it has ended
            words = Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace").split("\0")
            found += [pid] if word in words and "python" in words[0] else []
    return found


def connect(name: str, up: bool) -> None:
    """Plug a machine's cable in, or pull it out."""
    ip("link", "set", port(name), "up" if up else "down")


def address(name: str) -> str:
    """Return the address of a machine of `make`."""
    return f"{NETWORK}.{int(name.removeprefix('node') if name != HEAD else 0) + 1}"


def port(name: str) -> str:
    return f"cloud{name}"


def on(name: str, command: Sequence[str]) -> list[str]:
    """Return the command that runs `command` on a machine."""
    shell = 'hostname "$0"; exec "$@"'
    return ["ip", "netns", "exec", space(name), "unshare", "--uts", "sh", "-c", shell, name, *command]


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout
