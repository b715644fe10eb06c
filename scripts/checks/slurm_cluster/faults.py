"""`python -m scripts.checks.slurm_cluster.faults`: break runs on a running cluster in SLURM's own ways.

Each run is a job of scripts/slurm/train.sh on 1, 2 or 3 nodes. It is broken again and again while it trains, goes on
by itself or after `scontrol requeue`, and must end with the weights, metrics and results of one that nothing happened
to, started by `--devices` on one machine, bit for bit. Prints a table; ends with 1 where anything was lost.
"""

import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from dgcnn_ws.errors import InputError
from dgcnn_ws.text_table import markdown
from scripts.checks.inject_faults.bench import ROOT, Lost, write_clouds
from scripts.checks.inject_faults.outcome import differs, outcome
from scripts.checks.slurm_cluster import hosts
from scripts.checks.slurm_cluster.cluster import Cluster

SETTINGS = ["--dataset", "modelnet10", "--device", "cpu", "--num-points", "32", "--k", "5", "--emb-dims", "32"]
SETTINGS += ["--batch-size", "6", "--epochs", "150", "--lr", "1e-3"]
PATIENCE = 300.0  # seconds after which a job counts as hanging
HELD = "launch_failed_requeued_held"
ATTEMPTS = 3  # to start a job that SLURM fails
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED")


@dataclass(frozen=True)
class Arguments:
    folder: Path = Path("/var/tmp/slurm_cluster")
    """The cluster's, which is running."""
    count: int = 12
    """Faults of each kind."""
    nodes: tuple[int, ...] = (2, 3, 1)
    """Nodes of the runs, one run after the other."""
    only: str = ""
    """Kinds, with commas between. Default: all."""
    seed: int = 0
    """Decides the faults."""


class Bench:
    """Jobs on a cluster, in a folder that all nodes see."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.cluster, self.rng = cluster, random.Random(seed)
        self.by_hand = 0  # jobs that SLURM held, and that were released
        self.work = cluster.folder / "work"
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        (self.work / "main.py").symlink_to(ROOT / "main.py")
        write_clouds(self.work / "data/modelnet10_ply_hdf5_2048")
        self.settings = [*SETTINGS, "--data-root", str(self.work / "data")]
        self.whole = {nodes: self.leave_alone(nodes) for nodes in range(1, cluster.nodes + 1)}

    def leave_alone(self, nodes: int) -> object:
        command = [sys.executable, "main.py", "train", *self.settings, "--name", f"alone{nodes}"]
        with open(self.work / f"alone{nodes}.log", "w") as log:
            subprocess.run(
                ["env", "OMP_NUM_THREADS=1", *command, "--devices", str(nodes)],
                cwd=self.work,
                stdout=log,
                stderr=log,
                check=True,
            )
        return outcome(self.work / "runs" / f"alone{nodes}")

    def submit(self, nodes: int, name: str) -> "Job":
        path = Path(sys.executable).parent
        number = self.cluster.ask(
            *("env", f"PATH={path}:/usr/sbin:/usr/bin:/sbin:/bin", "OMP_NUM_THREADS=1", "sbatch", "--parsable"),
            *("--chdir", str(self.work), "--nodes", str(nodes), "--output", str(self.work / f"{name}.log")),
            *(str(ROOT / "scripts/slurm/train.sh"), name, *self.settings),
        )
        return Job(self.cluster, number, nodes, self.work / "runs" / name, self.work / f"{name}.log")


@dataclass
class Job:
    """A job that trains the run in `run` and speaks into `log`."""

    cluster: Cluster
    number: str
    nodes: int
    run: Path
    log: Path

    def __getattr__(self, name: str) -> str:
        shown = self.cluster.ask("scontrol", "show", "job", "--oneliner", self.number)
        found = re.search(rf"\b{name}=(\S*)", shown)
        if found is None:
            raise AttributeError(name)
        return found[1]

    def epochs(self) -> int:
        path = self.run / "metrics.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise Lost(f"after {PATIENCE:.0f} s not {what}, but {self.JobState}: {self.log.read_text()[-400:]}")
            time.sleep(0.2)

    def train(self, bench: Bench, epochs: int) -> bool:
        """Wait until some more epochs are trained, or the run has finished; whether it still trains then.

        After a lost node SLURM may take the job's next start for a forgery ("credential revoked") and fail it.
        """
        aim = self.epochs() + epochs
        for _ in range(ATTEMPTS):
            self.wait(lambda: self.epochs() >= aim or self.JobState in ENDED, "training")
            if (self.run / "results.json").exists():
                self.wait(lambda: self.JobState in ENDED, "at its end")
                return False
            if self.JobState not in ENDED:
                return True
            self.cluster.ask("scontrol", "requeue", self.number)
            bench.by_hand += 1
        raise Lost(f"SLURM does not start it any more: {self.JobState}")

    def node(self, rng: random.Random) -> str:
        listed = self.cluster.ask("scontrol", "show", "hostnames", self.NodeList)
        return rng.choice(listed.split())


# --- faults: each leaves a job that goes on by itself, or has ended ---


def lose_node(bench: Bench, job: Job) -> None:
    """Everything on one of its nodes ends; the node comes back once SLURM has given it up."""
    name, restarts = job.node(bench.rng), job.Restarts
    hosts.kill(name)
    job.wait(lambda: job.Restarts != restarts or job.JobState in ENDED, "given up by SLURM")
    bench.cluster.start_node(name)


def kill_process(bench: Bench, job: Job) -> None:
    """One of its processes is killed, as by a kernel without memory."""
    pids = hosts.pids_of(job.node(bench.rng), "main.py")
    if pids:
        subprocess.run(["kill", "-KILL", bench.rng.choice(pids)], check=False)
        job.wait(lambda: job.JobState != "RUNNING", "ended")


def requeue(bench: Bench, job: Job) -> None:
    job.cluster.ask("scontrol", "requeue", job.number)


def preempt(bench: Bench, job: Job) -> None:
    """Another job, of more priority, takes all nodes for a moment."""
    more = ("--partition", "high", "--exclusive", "--nodes", str(bench.cluster.nodes), "--output", "/dev/null")
    restarts = job.Restarts
    job.cluster.ask("sbatch", *more, "--wrap", "sleep 1")
    job.wait(lambda: job.Restarts != restarts or job.JobState in ENDED, "preempted")


def shorten(bench: Bench, job: Job) -> None:
    """Its time limit becomes a minute, less than its signal's two; then it has none, or is told so if it was faster."""
    restarts, epochs = job.Restarts, job.epochs()
    job.cluster.ask("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")
    job.wait(lambda: job.Restarts != restarts or job.JobState in ENDED, "out of time")
    if job.JobState in ENDED:  # before its time was up
        return
    job.cluster.ask("scontrol", "update", f"JobId={job.number}", "TimeLimit=UNLIMITED")
    job.wait(lambda: job.epochs() > epochs or job.JobState in ENDED, "training")


def unplug(bench: Bench, job: Job) -> None:
    """The cable of one of its nodes is out, until SLURM has given the node up and what runs there has ended.

    SLURM then takes what it started anew for a duplicate where the node still reports the lost one: it drains the
    node and holds the job, until somebody says that all is well.
    """
    name, restarts = job.node(bench.rng), job.Restarts
    hosts.connect(name, up=False)
    job.wait(lambda: job.Restarts != restarts or job.JobState in ENDED, "given up by SLURM")
    job.wait(lambda: not hosts.pids_of(name, "main.py"), "ended where it was lost")
    hosts.connect(name, up=True)
    job.wait(lambda: job.JobState in ("RUNNING", *ENDED) or job.Reason == HELD, "started again")
    if job.JobState not in ("RUNNING", *ENDED):
        bench.cluster.ask("scontrol", "update", f"nodename={name}", "state=resume")
        bench.cluster.ask("scontrol", "release", job.number)
        bench.by_hand += 1


KINDS: dict[str, tuple[str, Callable[[Bench, Job], None]]] = {
    "node": ("a node lost: its slurmd and all it started killed", lose_node),
    "process": ("SIGKILL of one process", kill_process),
    "requeue": ("`scontrol requeue`", requeue),
    "preempt": ("preempted by a job of more priority", preempt),
    "limit": ("time limit cut to a minute", shorten),
    "cable": ("a node's cable pulled until SLURM gives it up", unplug),
}
GOES_ON, TOLD = "went on by itself", "one sentence, then `scontrol requeue`"
BY_HAND = "SLURM held or failed it, `scontrol` started it"


def break_once(bench: Bench, job: Job, kind: str) -> str:
    """Break a job that trains; return how it took it. Raises Lost where it hangs, or ends without a sentence."""
    restarts, said = job.Restarts, len(job.log.read_text())
    KINDS[kind][1](bench, job)
    job.wait(lambda: job.Restarts != restarts or job.JobState in ENDED, "started again or ended")
    if job.JobState == "COMPLETED":
        return ""
    if job.Restarts != restarts and job.JobState not in ENDED:
        return GOES_ON
    # A run's first process, which speaks for all, says nothing when it is killed; srun does.
    news = job.log.read_text()[said:]
    errors = re.findall(r"^error: .*|task 0: Killed", news, re.MULTILINE)
    if len(errors) != 1 or "Traceback" in news:
        raise Lost(f"{job.JobState}: {news[-600:]}")
    job.cluster.ask("scontrol", "requeue", job.number)
    return TOLD


def main(arguments: list[str]) -> int:
    args = tyro.cli(Arguments, args=arguments, description=__doc__)
    hosts.require("scontrol", "sbatch")
    bench = Bench(Cluster(args.folder), args.seed)
    left = Counter({kind: args.count for kind in (args.only.split(",") if args.only else KINDS)})
    hows: dict[str, Counter[str]] = {kind: Counter() for kind in left}
    lost, trial = [], 0
    while left.total():
        trial += 1
        job = bench.submit(args.nodes[(trial - 1) % len(args.nodes)], f"trial{trial}")
        done: list[str] = []
        try:
            while left.total() and len(done) < 8 and job.train(bench, 2):
                kind, before = bench.rng.choice(sorted(left.elements())), bench.by_hand
                done.append(kind)
                how = break_once(bench, job, kind)
                if how:
                    job.train(bench, 1)
                    how = BY_HAND if bench.by_hand > before else how
                    hows[kind][how] += 1
                    left[kind] -= 1
                    print(f"{time.strftime('%T')} run {trial} on {job.nodes}: {kind}: {how}", file=sys.stderr)
            while job.train(bench, 1000):
                pass
            if difference := differs(outcome(job.run), bench.whole[job.nodes]):
                raise Lost(f"ended otherwise than one left alone: {difference}")
        except (Lost, InputError, OSError, subprocess.CalledProcessError) as error:
            lost.append(f"run {trial} on {job.nodes} nodes, after {', '.join(done)}: {error}")
            print(lost[-1], file=sys.stderr)
            left[done[-1] if done else next(iter(left))] -= 1
            subprocess.run(hosts.on(hosts.HEAD, ["scancel", job.number]), env=bench.cluster.environment(), check=False)
    ways = (GOES_ON, TOLD, BY_HAND)
    rows = [["what was done", "how often", *ways]]
    for kind, counts in hows.items():
        rows.append([KINDS[kind][0], f"{counts.total()}", *(f"{counts[way]}" for way in ways)])
    print("\n".join(markdown(rows)))
    print(f"\n{trial} runs, of which {len(lost)} were lost", *lost, sep="\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
