"""`benchmark`: time and memory per cloud, in training and inference, beside the unavoidable.

Time: milliseconds per cloud, the median over rounds in which the implementations take turns in one process,
after a warm-up. A training step is forward pass, cross entropy, backward pass, fused Adam and
zero_grad; inference is a forward pass. The speed-up is the time of a setting's first implementation over this
one's, taken round by round: median and range.

Floor: the multiply-adds that no implementation avoids (distances and products on points, nothing on edges) at
the rate of the best matrix product, timed in the same rounds on the shape of the shared convolution.

Memory: MB (10^6 bytes) per cloud that a step takes above the idle process. On the CPU each configuration has
a process of its own: weights, optimizer state and input are in place, the resident memory is read, the
recorded peak is reset (Linux: /proc/self/clear_refs; elsewhere it is the fresh process's own), two steps run
(one if it takes over 2 s), and the peak's excess is divided by the clouds; gradients count. On CUDA the same is
read off torch's allocator.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.cli.arguments import check_picture, numbers, words
from dgcnn_ws.engine.recipe import Norm
from dgcnn_ws.errors import InputError
from dgcnn_ws.text_table import aligned

if TYPE_CHECKING:
    import torch

    from dgcnn_ws.benchmark.benchmark import Setting

MODES = {
    "train": "training step",
    "inference": "inference",
    "layers": "EdgeConv layers, graph given: forward and backward pass",
    "ragged": "EdgeConv 64 -> 64 on clouds of different sizes, graph given: forward and backward pass",
    "ragged_deep": "EdgeConv 64 -> 64, 64 on clouds of different sizes, graph given: forward and backward pass",
}


@dataclass(frozen=True)
class Arguments:
    modes: str = "train,inference,layers"
    """What to measure, with commas between: train | inference | layers (four EdgeConvs in a row, graph given,
    against torch_geometric's; beside other modes only at the first batch size and number of points) | ragged,
    ragged_deep (one EdgeConv of one or two convolutions, graph given, against torch_geometric's, on clouds of
    an eighth of --num-points up to it)."""
    batch_sizes: str = "1,4,16"
    """Clouds in a step, with commas between."""
    num_points: str = "1024,2048"
    """Points of a cloud, with commas between."""
    norms: str = "ws_gn,bn"
    """Normalisations, with commas between: ws_gn | gn | ws_bn | bn | ws_bcn."""
    k: int = 20
    """Neighbours of a point, itself included."""
    emb_dims: int = 1024
    """Channels before pooling."""
    precision: str = "32"
    """Arithmetic, with commas between: 32 | bf16. Statistics and sums stay float32. Each has its own floor."""
    device: str = "auto"
    """Where to compute: auto | cpu | cuda | cuda:N."""
    threads: int | None = None
    """CPU threads. Default: torch's own choice."""
    rounds: int = 5
    """Turns that the implementations take."""
    patience: float = 10.0
    """Seconds after which a configuration starts no further round; two always run (one with --rounds 1)."""
    max_memory_gb: float | None = None
    """A configuration whose edge tensors need more is not run. Default: half of the free memory."""
    json: Path | None = None
    """Write every figure to this file."""
    plot: Path | None = None
    """Draw time and memory per cloud into this picture (.png, .pdf, .svg)."""
    profile: bool = False
    """Begin with the operators of one fused training step: the first norm and points, the largest batch."""


def check(args: Arguments) -> None:
    """Raise InputError for what would otherwise fail, or be lost, after minutes."""
    for flag, value in (("--k", args.k), ("--emb-dims", args.emb_dims), ("--rounds", args.rounds)):
        if value < 1:
            raise InputError(f"{flag} is {value}, but must be at least 1.")
    if args.threads is not None and args.threads < 1:
        raise InputError(f"--threads is {args.threads}, but must be at least 1.")
    for flag, limit in (("--patience", args.patience), ("--max-memory-gb", args.max_memory_gb)):
        if limit is not None and not limit >= 0:
            raise InputError(f"{flag} is {limit}, but must be at least 0.")
    for mode in words("--modes", args.modes):
        if mode not in MODES:
            raise InputError(f"--modes {mode!r} is unknown. Choose from {', '.join(MODES)}.")
    for precision in words("--precision", args.precision):
        if precision not in ("32", "bf16"):
            raise InputError(f"--precision {precision!r} is unknown. Choose from 32, bf16.")
    for norm in words("--norms", args.norms):
        if norm not in get_args(Norm):
            raise InputError(f"norm {norm!r} is unknown. Choose one of {', '.join(get_args(Norm))}.")
    fewest = min(numbers("--num-points", args.num_points))
    if args.k > fewest:
        raise InputError(
            f"k={args.k} neighbours need at least {args.k} points; --num-points asks for {fewest}. "
            "Lower --k or raise --num-points."
        )
    numbers("--batch-sizes", args.batch_sizes)
    for flag, path in (("--json", args.json), ("--plot", args.plot)):
        if path and not path.parent.is_dir():
            raise InputError(f"{flag} {path}: there is no folder {path.parent}. Make it first.")
    check_picture("--plot", args.plot)


def plan(args: Arguments, device: "torch.device") -> "list[Setting]":
    """Return the settings to measure, in the order of the tables."""
    import torch

    from dgcnn_ws.benchmark.benchmark import Setting

    modes, norms = words("--modes", args.modes), words("--norms", args.norms)
    batch_sizes = numbers("--batch-sizes", args.batch_sizes)
    num_points = numbers("--num-points", args.num_points)
    precisions = words("--precision", args.precision)
    place = str(device), torch.get_num_threads()
    settings = []
    for mode in modes:
        # The layers' table stays small beside the others.
        end = 1 if mode == "layers" and len(modes) > 1 else None
        for norm in norms:
            for points in num_points[:end]:
                settings += [
                    Setting(mode, norm, points, size, args.k, args.emb_dims, precision, *place)
                    for size in batch_sizes[:end]
                    for precision in precisions
                ]
    return settings


def measure(settings: "list[Setting]", args: Arguments, device: "torch.device") -> list[dict[str, Any]]:
    """Return the rows of every setting, behind a progress bar."""
    from tqdm import tqdm

    from dgcnn_ws.benchmark import benchmark

    gigabytes = args.max_memory_gb
    limit = benchmark.free_memory_bytes(device) / 2 if gigabytes is None else 1e9 * gigabytes
    rows: list[dict[str, Any]] = []
    total = sum(len(benchmark.IMPLEMENTATIONS[setting.mode]) for setting in settings)
    with tqdm(total=total, unit=" configurations", dynamic_ncols=True, leave=False) as bar:
        for setting in settings:
            bar.set_description(f"{setting.mode} {setting.norm} {setting.batch_size} x {setting.num_points}")
            rows += benchmark.measure(setting, args.rounds, args.patience, limit)
            bar.update(len(rows) - bar.n)
    return rows


def with_range(values: dict[str, float]) -> str:
    """Return median and range, with three digits of the median at least."""
    digits = min(max(2 - math.floor(math.log10(values["median"])), 0), 4)
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f} - {values['max']:.{digits}f})"


def speedup(row: dict[str, Any]) -> str:
    from dgcnn_ws.benchmark import benchmark

    if row["implementation"] == benchmark.IMPLEMENTATIONS[row["mode"]][0]:
        return "1"
    return with_range(row["speedup"]) if "speedup" in row else "-"


# The columns of a table: heading, alignment, text of a row that was measured.
COLUMNS: list[tuple[str, str, Callable[[dict[str, Any]], str]]] = [
    ("norm", "<", lambda row: row["norm"]),
    ("precision", ">", lambda row: row["precision"]),
    ("points", ">", lambda row: str(row["num_points"])),
    ("batch", ">", lambda row: str(row["batch_size"])),
    ("implementation", "<", lambda row: row["implementation"]),
    ("ms", ">", lambda row: with_range(row["milliseconds_per_cloud"])),
    ("speed-up", ">", speedup),
    ("floor (ms)", ">", lambda row: f"{row['floor_milliseconds_per_cloud']['median']:.3g}"),
    ("x floor", ">", lambda row: f"{row['times_floor']['median']:.1f}"),
    ("MB", ">", lambda row: f"{row['memory_bytes_per_cloud'] / 1e6:.1f}"),
]
NUM_NAMES = 5  # columns that say what was measured


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows of one mode as aligned text."""
    lines = [[name for name, _, _ in COLUMNS]]
    for row in rows:
        shown, note = (COLUMNS[:NUM_NAMES], [f"not run: {row['refusal']}"]) if row["refusal"] else (COLUMNS, [])
        lines.append([text(row) for _, _, text in shown] + note)
    return "\n".join(aligned(lines, "".join(sign for _, sign, _ in COLUMNS)))


def report(rows: list[dict[str, Any]]) -> str:
    """Return the tables, one a mode, and what to know beside them."""
    blocks = []
    for mode, title in MODES.items():
        if shown := [row for row in rows if row["mode"] == mode]:
            blocks.append(f"{title}, per cloud\n{table(shown)}")
    notes = []
    if products := [row["product_gflops"] for row in rows if not row["refusal"]]:
        best = {name: max(row[name] for row in products) for name in products[0]}
        rates = ", ".join(f"{name} {rate:.1f}" for name, rate in best.items())
        notes.append(f"matrix products, best configuration, in GFLOP/s: {rates}")
    if any(row["head_norm"] for row in rows):
        notes.append("batch norm trains batch 1 with an est head: in the head, it cannot train on one cloud")
    if any(row["refusal"] and "GB" in row["refusal"] for row in rows):
        notes.append("what was not run needs more than --max-memory-gb, by default half of the free memory")
    return "\n\n".join([*blocks, "\n".join(notes)])


def breakdown_table(setting: "Setting", operators: list[dict[str, Any]]) -> str:
    """Return a training step's operators as aligned text."""
    title = f"one fused training step, {setting.norm}, {setting.batch_size} x {setting.num_points:,} points"
    rows = [["operator (time of its own)", "calls", "ms", "%"]]
    for operator in operators:
        calls, time, share = operator["calls"], operator["milliseconds"], 100 * operator["share"]
        rows.append([operator["operator"], f"{calls}", f"{time:.2f}", f"{share:.1f}"])
    return "\n".join([title, *aligned(rows, "<>>>")])


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "benchmark", arguments, __doc__)
    check(args)
    import torch

    from dgcnn_ws.benchmark import benchmark
    from dgcnn_ws.engine.folder.checkpoint import write_json
    from dgcnn_ws.engine.machine.devices import describe_environment, pick_device

    device = pick_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    settings = plan(args, device)
    environment = describe_environment(device)
    title = f"{environment['hardware']}, {environment['threads']} threads, torch {environment['torch']}"
    title += f", k = {args.k}, emb_dims = {args.emb_dims}"
    print(f"{title}\n", flush=True)
    given = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    content: dict[str, Any] = {"environment": environment, "arguments": given}
    if args.profile:
        profiled = max(settings, key=lambda setting: setting.batch_size)  # the first of the largest
        content["profile"] = benchmark.profile_training_step(profiled)
        print(f"{breakdown_table(profiled, content['profile'])}\n", flush=True)
    content["rows"] = rows = measure(settings, args, device)
    print(report(rows))
    if args.json:
        write_json(args.json, content)
    if args.plot:
        from dgcnn_ws.pictures import plots

        plots.draw_benchmark(rows, title, args.plot)
