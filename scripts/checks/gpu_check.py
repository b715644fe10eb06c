"""`python -m scripts.checks.gpu_check --out FOLDER`: whether a card computes right, how fast, and what it learns.

Each step runs in a process of its own and ends when its share of the minutes is used up, so that one which fails, hangs
or breaks the device leaves the others whole. What is found is a line of FOLDER/findings.jsonl at once; FOLDER/report.md
holds the tables, which are printed last. The same command goes on with the training runs.
"""

import importlib.util
import json
import multiprocessing
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from dgcnn_ws.benchmark import benchmark
from dgcnn_ws.benchmark.benchmark import Setting
from dgcnn_ws.engine.machine.devices import describe_environment, pick_device
from dgcnn_ws.engine.recipe import Precision, Recipe, complete
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import replacing
from dgcnn_ws.nn.norm import NORMS
from dgcnn_ws.study import study
from dgcnn_ws.study.pool import train_all
from scripts.checks import agreement, gpu_report, throughput
from scripts.checks.agreement import Comparison

GRACE = 60.0  # seconds in which training runs save their place after they were asked to stop
EPOCH_CLOUDS = 9840
TESTS = ("tests/ops/test_cuda.py", "tests/engine/machine/test_cuda_graph.py")


@dataclass(frozen=True)
class Arguments:
    out: Path
    """Folder for what is found; made if it does not exist."""
    data_root: Path = Path("data")
    """Folder that holds modelnet10_ply_hdf5_2048/, for the part learning."""
    minutes: float = 25.0
    """When to be done."""
    device: str = "cuda"
    """Where to compute: cuda | cuda:N | cpu."""
    parts: str = "right,fast,learning"
    """What to do, with commas between: right | fast | learning."""
    epochs: int = 100
    """Epochs of a training run."""
    seeds: int = 5
    """Training runs of each kind, at most: the first of all kinds come before the second of any."""
    jobs: int = 4
    """Training runs at a time."""
    tiny: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Sizes that a CPU does in seconds: shows that the check itself works, and measures nothing."""


@dataclass(frozen=True)
class Record:
    """Where a step of the check writes its findings: one JSON line each, in the file before the next begins."""

    path: Path
    step: str

    def __call__(self, **finding: Any) -> None:
        with open(self.path, "a") as file:
            file.write(json.dumps({"time": time.time(), "step": self.step, **finding}) + "\n")

    def failure(self, what: str, error: BaseException) -> None:
        text = str(error).strip().partition("\n")[0]
        sentence = text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"
        self(what=what, failure=sentence, details=traceback.format_exc())

    def comparisons(self, what: str, comparisons: Iterable[Comparison]) -> None:
        """Write each comparison; an error among them is written, and ends only them."""
        try:
            for comparison in comparisons:
                self(comparison=asdict(comparison) | {"agrees": comparison.agrees})
        except Exception as error:
            self.failure(what, error)


# --- right ---


def check_operators(args: Arguments, device: torch.device, record: Record) -> None:
    kernels = importlib.import_module(f"dgcnn_ws.ops.{device.type}")
    shapes = [(2, 1024, 20, 64), (3, 1001, 21, 67), (1, 1, 1, 1), (1, 2048, 40, 256), (1, 5000, 20, 3)]
    if args.tiny:
        shapes = [(2, 33, 5, 6), (1, 1, 1, 1)]
    for shape in shapes:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            comparisons = agreement.compare_operators(kernels, device, dtype, shape)
            record.comparisons(f"operators {dtype} {shape}", comparisons)


def check_modules(args: Arguments, device: torch.device, record: Record) -> None:
    dtypes = [torch.float32, torch.bfloat16] + ([torch.float16] if device.type == "cuda" else [])
    sizes = (4, 20, 4, 8) if args.tiny else (6, 257, 10, 48)  # clouds, points, neighbours, channels
    record.comparisons("modules", agreement.compare_modules(device, dtypes, *sizes))


def check_repeats(args: Arguments, device: torch.device, record: Record) -> None:
    sizes, times = ((2, 20, 4, 8), 3) if args.tiny else ((8, 1024, 20, 1024), 20)
    for norm in NORMS:
        different = agreement.count_different_repeats(device, norm, *sizes, times)
        record.comparisons(norm, [Comparison(f"{norm}: of {times} equal passes, different ones", different, 0)])


def check_tests(args: Arguments, device: torch.device, record: Record) -> None:
    """Run the tests that only a card can: kernels at full size, bits in a CUDA graph, replayed steps."""
    if device.type != "cuda":
        record(tests="not run: they need a CUDA device")
        return
    if importlib.util.find_spec("pytest") is None:
        raise InputError("pytest is not installed, so the tests on the card were not run.")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", *TESTS]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    record(tests=done.stdout.strip().rpartition("\n")[2], output=done.stdout[-20_000:], errors=done.stderr[-5_000:])
    if done.returncode:
        raise InputError(f"pytest ended with exit code {done.returncode}; its output is in {record.path}.")


def check_compile(args: Arguments, device: torch.device, record: Record) -> None:
    sizes = (2, 20, 4, 8) if args.tiny else (4, 512, 20, 256)
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    record.comparisons("torch.compile", agreement.compare_compiled(device, backend, *sizes))


# --- fast ---


def benchmark_settings(args: Arguments, device: torch.device) -> list[Setting]:
    """Return what to measure, the figures that are wanted most first: time may end before the list."""
    points, batches = (1024, 2048), (32, 1, 128, 4, 16, 64)
    base = Setting("train", "ws_gn", 1024, 32, device=str(device), threads=torch.get_num_threads())
    if args.tiny:
        return [replace(base, num_points=20, batch_size=2, k=4, emb_dims=16)]
    settings = [
        replace(base, mode=mode, num_points=num_points, batch_size=size)
        for num_points in points
        for mode in ("train", "inference", "layers")
        for size in batches
    ]
    return [*settings, replace(base, norm="bn"), replace(base, precision="bf16")]


def check_benchmark(args: Arguments, device: torch.device, record: Record) -> None:
    bandwidth = throughput.copy_bandwidth(device, 2**20 if args.tiny else 2**30)
    record(copy_bandwidth=bandwidth)
    limit = 0.8 * benchmark.free_memory_bytes(device)
    rounds, patience = (1, 0.0) if args.tiny else (3, 3.0)
    for setting in benchmark_settings(args, device):
        try:
            rows = benchmark.measure(setting, rounds, patience, limit)
        except Exception as error:
            record.failure(f"{setting}", error)
            continue
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()  # the next setting's tensors have other sizes
        milliseconds = 1000 * throughput.unavoidable_bytes(setting) / bandwidth
        for row in rows:
            row |= {"precision": setting.precision, "copy_floor_milliseconds_per_cloud": milliseconds}
            if not row["refusal"]:
                both = max(milliseconds, row["floor_milliseconds_per_cloud"]["median"])
                row["times_both_floors"] = row["milliseconds_per_cloud"]["median"] / both
            record(row=row)


def check_micro_batches(args: Arguments, device: torch.device, record: Record) -> None:
    """Time an optimizer step on 32 clouds, one a forward pass."""
    base = benchmark_settings(args, device)[0]
    for norm in ("ws_gn", "ws_bcn"):
        setting = replace(base, norm=norm)
        steps = {name: throughput.micro_batch_step(setting, name, False) for name in ("reference", "fused")}
        if device.type == "cuda":
            steps["fused, CUDA graph"] = throughput.micro_batch_step(setting, "fused", True)
        times = benchmark.time_rounds(setting, steps, 1 if args.tiny else 3, 5.0)
        for name, seconds in times.items():
            per_cloud = [1000 * s / setting.batch_size for s in seconds]
            ratio = [r / s for r, s in zip(times["reference"], seconds, strict=True)]
            figures = {"milliseconds_per_cloud": benchmark.spread(per_cloud), "speedup": benchmark.spread(ratio)}
            record(micro_batch={"norm": norm, "implementation": name, **figures})


def check_epochs(args: Arguments, device: torch.device, record: Record) -> None:
    """Time whole epochs of a run, as `train` does them, on as many random clouds as ModelNet40 has."""
    clouds, num_points, k, emb_dims, batch = (9, 20, 4, 16, 4) if args.tiny else (EPOCH_CLOUDS, 1024, 20, 1024, 32)
    root = args.out / "random"
    throughput.write_random_clouds(root, clouds, batch, num_points)
    # The head that a CUDA graph can record at any micro-batch.
    base = Recipe(dataset="modelnet40", data_root=root, select="test", epochs=3, device=str(device), head_norm="est")
    base = replace(base, num_points=num_points, k=k, emb_dims=emb_dims, batch_size=batch)
    on_card = device.type == "cuda"
    kinds: list[tuple[Precision, int, bool]] = [("32", batch, False), ("32", 1, on_card)]
    if on_card:
        half: tuple[Precision, ...] = ("bf16", "16")
        kinds[1:1] = [("32", batch, True), *((p, batch, graph) for p in half for graph in (False, True))]
    for precision, micro_batch, graph in kinds:
        recipe = complete(replace(base, precision=precision, micro_batch=micro_batch, cuda_graph=graph))
        kind = {"precision": precision, "micro_batch": micro_batch, "cuda_graph": graph}
        try:
            folder = args.out / "epochs" / f"{precision}-mb{micro_batch}{'-graph' * graph}-{time.time_ns()}"
            epoch = throughput.last_epoch(recipe, folder)
        except Exception as error:
            record.failure(f"epoch {kind}", error)
            continue
        record(epoch=kind | epoch | {"seconds_of_9840_clouds": epoch["seconds"] * EPOCH_CLOUDS / epoch["clouds"]})


# --- learning ---


def make_cells(args: Arguments, device: torch.device) -> list[study.Cell]:
    base = Recipe(dataset="modelnet10", data_root=args.data_root, epochs=args.epochs, device=str(device))
    base = replace(base, cuda_graph=device.type == "cuda")
    if args.tiny:
        base = replace(base, num_points=20, k=4, emb_dims=16, batch_size=8)
    seeds, batch = list(range(args.seeds)), base.batch_size
    return [
        *study.make_grid(base, ["bn"], ["default"], [2, batch], seeds, law=False),
        *study.make_grid(base, ["ws_gn", "ws_bcn"], ["default"], [1, batch], seeds, law=False),
    ]


def check_learning(args: Arguments, device: torch.device, record: Record) -> None:
    """Train what the minutes allow, seed by seed; asked to stop, the runs save their places."""
    folder = args.out / "study"
    cells = make_cells(args, device)
    jobs = [job for of_seed in zip(*(cell.jobs(folder) for cell in cells), strict=True) for job in of_seed]
    try:
        train_all(jobs, args.jobs)
    except Interrupted as stop:
        record(stopped=str(stop))
    for cell in cells:
        record(cell=study.summarize(cell, folder))


# --- all of it ---


@dataclass(frozen=True)
class Step:
    """A part's step: what runs, and the most of 25 minutes that it may take; None for all that is left."""

    part: str
    run: Callable[[Arguments, torch.device, Record], None]
    minutes: float | None


STEPS = {
    "operators": Step("right", check_operators, 3.0),
    "modules": Step("right", check_modules, 2.0),
    "repeats": Step("right", check_repeats, 1.0),
    "tests": Step("right", check_tests, 2.0),
    "compile": Step("right", check_compile, 2.0),
    "benchmark": Step("fast", check_benchmark, 4.5),
    "micro_batches": Step("fast", check_micro_batches, 1.0),
    "epochs": Step("fast", check_epochs, 2.0),
    "learning": Step("learning", check_learning, None),
}


def run_step(name: str, args: Arguments) -> None:
    """Run one step, in a process of its own."""
    record = Record(args.out / "findings.jsonl", name)
    begun = time.monotonic()
    try:
        STEPS[name].run(args, pick_device(args.device), record)
    except Exception as error:
        record.failure(name, error)
    record(finished=True, seconds=time.monotonic() - begun)


def supervise(name: str, args: Arguments, seconds: float) -> None:
    """Run a step for so many seconds at most, and write down where it did not end well."""
    context = multiprocessing.get_context("forkserver")
    # torch is imported once, and meets no device there.
    context.set_forkserver_preload(["scripts.checks.agreement", "scripts.checks.throughput"])
    process = context.Process(target=run_step, args=(name, args))
    process.start()
    process.join(seconds)
    late = process.is_alive()
    if late:
        process.terminate()
        process.join(GRACE)
    if process.is_alive():
        process.kill()
        process.join()
    record = Record(args.out / "findings.jsonl", name)
    if process.exitcode:  # training runs that are asked to stop end well
        reason = f"stopped after {seconds:.0f} s, its share of the time" if late else "its process broke down"
        record(what=name, failure=f"{reason} (exit code {process.exitcode}); what it found until then counts.")


def check_arguments(args: Arguments) -> list[str]:
    """Return the parts that were asked for. Raises InputError for what cannot work."""
    parts = [part.strip() for part in args.parts.split(",") if part.strip()]
    known = list(dict.fromkeys(step.part for step in STEPS.values()))
    for part in parts:
        if part not in known:
            raise InputError(f"--parts {part!r} is unknown. Choose from {', '.join(known)}.")
    if not parts:
        raise InputError(f"--parts {args.parts!r} is an empty list. Choose from {', '.join(known)}.")
    for flag, value in (("minutes", args.minutes), ("epochs", args.epochs), ("seeds", args.seeds), ("jobs", args.jobs)):
        if not value > 0:
            raise InputError(f"--{flag} is {value}, but must be above 0.")
    pick_device(args.device)
    return parts


def read_findings(path: Path, since: float) -> list[dict[str, Any]]:
    findings = [json.loads(line) for line in path.read_text().splitlines()]
    return [finding for finding in findings if finding["time"] >= since]


def main(arguments: list[str]) -> int:
    """Run the check and return the exit code: 0, or 1 where something failed or disagreed. Raises InputError."""
    args = tyro.cli(Arguments, prog="python -m scripts.checks.gpu_check", args=arguments, description=__doc__)
    parts = check_arguments(args)
    args.out.mkdir(parents=True, exist_ok=True)
    path, since, begun = args.out / "findings.jsonl", time.time(), time.monotonic()
    Record(path, "start")(environment=describe_environment(pick_device(args.device)), arguments=arguments)
    for name, step in STEPS.items():
        left = 60 * args.minutes - (time.monotonic() - begun)
        if step.part not in parts:
            continue
        most = left - GRACE if step.minutes is None else 60 * step.minutes * args.minutes / 25
        share = max(min(left, most), 0)
        print(f"{step.part}: {name}, at most {share:.0f} s", flush=True)
        supervise(name, args, share)
    findings = read_findings(path, since)
    text = gpu_report.report(findings)
    with replacing(args.out / "report.md") as temporary:
        temporary.write_text(text)
    print(f"\n{text}\nsee {args.out}/")
    return 1 if gpu_report.failures(findings) else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except InputError as error:
        sys.exit(f"error: {error}")
