"""`python -m scripts.checks.slurm_cluster`: a real SLURM on this machine, with a controller and three nodes.

Debian's packages (slurm-wlm, munge, iproute2), as root. Each node is a network namespace with a name and an address of
its own; they share this machine's files. Nothing outside --folder is changed but the namespaces, which `stop` removes.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from scripts.checks.slurm_cluster import hosts
from scripts.checks.slurm_cluster.cluster import NODES, Cluster


@dataclass(frozen=True)
class Arguments:
    action: Annotated[Literal["start", "stop", "run"], tyro.conf.Positional]
    """start, stop, or run a command such as sbatch, squeue or scancel on its head."""
    command: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """The command to run, after --."""
    folder: Path = Path("/var/tmp/slurm_cluster")
    """Configuration, state and logs."""
    nodes: int = NODES
    """Nodes beside the head."""


def main() -> int:
    args = tyro.cli(Arguments, prog="python -m scripts.checks.slurm_cluster", description=__doc__)
    cluster = Cluster(args.folder, args.nodes)
    if args.action == "start":
        cluster.start()
        print(f"{args.nodes} nodes are idle; try: python -m scripts.checks.slurm_cluster run -- sinfo")
    elif args.action == "stop":
        cluster.stop()
    else:
        return subprocess.run(hosts.on(hosts.HEAD, args.command), env=cluster.environment(), check=False).returncode
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
