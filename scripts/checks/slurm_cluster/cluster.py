"""A SLURM of its own: munge, a controller and nodes, each on a machine of `hosts`."""

import os
import subprocess
import time
from pathlib import Path

from scripts.checks.slurm_cluster import hosts

NODES = 3
PATIENCE = 60.0  # seconds for the nodes to be idle
CONF = """\
ClusterName=clouds
SlurmctldHost=head
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2,requeue_delay=1
SlurmdTimeout=10
SlurmctldTimeout=10
InactiveLimit=0
KillWait=10
MinJobAge=3600
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node[1-{nodes}] CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30 MaxTime=INFINITE
PartitionName=high Nodes=ALL PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE
"""


class Cluster:
    """A controller and nodes. `folder` holds configuration, state and logs; no path in it may have blanks."""

    def __init__(self, folder: Path, nodes: int = NODES) -> None:
        self.folder, self.nodes = folder.absolute(), nodes

    def start(self) -> None:
        """Start everything and wait until all nodes are idle. Ends with a sentence where something is missing."""
        hosts.require("ip", "unshare", "munged", "slurmctld", "slurmd", "sbatch")
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", *(f"spool.{node}" for node in self.names())):
            (self.folder / name).mkdir(exist_ok=True)
        (self.folder / "slurm.conf").write_text(CONF.format(folder=self.folder, nodes=self.nodes))
        # Nothing is asked of cgroups, but a node ends at once where it finds none by itself.
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        hosts.remove()
        hosts.make(self.nodes)
        places = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{flag}={self.folder}/munge.{name}" for flag, name in places.items()]
        self.on(hosts.HEAD, "munged", "--force", *munge)
        self.on(hosts.HEAD, "slurmctld", "-c")
        for name in self.names():
            self.start_node(name)
        self.wait_for_nodes()

    def stop(self) -> None:
        """End every process of the cluster, and remove its machines."""
        hosts.remove()

    def names(self) -> list[str]:
        return hosts.names(self.nodes)[1:]

    def start_node(self, name: str) -> None:
        self.on(name, "slurmd", "-N", name)

    def on(self, name: str, *command: str) -> str:
        """Run a command on a machine and return what it says. Raises CalledProcessError."""
        done = subprocess.run(
            hosts.on(name, command), env=self.environment(), stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout.strip()

    def ask(self, *command: str) -> str:
        """Run one of SLURM's commands on the head and return what it says."""
        return self.on(hosts.HEAD, *command)

    def environment(self) -> dict[str, str]:
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def wait_for_nodes(self) -> None:
        end = time.monotonic() + PATIENCE
        while (states := self.ask("sinfo", "--noheader", "--Node", "--partition", "low", "--format", "%T").split()) != [
            "idle"
        ] * self.nodes:
            if time.monotonic() > end:
                raise SystemExit(f"error: the nodes are {', '.join(states)}, not idle. See {self.folder}/*.log.")
            time.sleep(0.5)
