"""What a check of a card found, as tables: what failed, the targets, micro-batches, epochs and accuracies."""

from typing import Any

from dgcnn_ws.study.report import markdown_table
from dgcnn_ws.text_table import markdown

Finding = dict[str, Any]
SPEEDUP, EPOCH_SECONDS, MEMORY = 6.0, 2.0, 1 / 8  # targets: times and share of the reference, and of 9,840 clouds


def failures(findings: list[Finding]) -> list[str]:
    """Return a sentence for each thing that failed or disagreed."""
    sentences = [f"{found['step']}, {found['what']}: {found['failure']}" for found in _with("failure", findings)]
    for found in _all("comparison", findings):
        if not found["agrees"]:
            sentences.append(f"{found['name']}: error {found['error']:.2g}, allowed {found['allowed']:.2g}")
    for cell in _all("cell", findings):
        # A run that was stopped has no reason: it has not failed.
        sentences += [f"{run}: {reason}" for run, reason in cell["failures"].items() if reason]
    return sentences


def targets(findings: list[Finding]) -> list[tuple[str, float, str, bool]]:
    """Return each target that was measured: of what, the figure, the bound, and whether it is met."""
    found: list[tuple[str, float, str, bool]] = []

    def at_least(what: str, figure: float, bound: float) -> None:
        found.append((what, figure, f"≥ {bound:g}", figure >= bound))

    def at_most(what: str, figure: float, bound: float) -> None:
        found.append((what, figure, f"≤ {bound:g}", figure <= bound))

    place = {"mode": "train", "num_points": 1024, "batch_size": 32, "precision": "32", "refusal": None}
    rows = [row for row in _all("row", findings) if all(row[name] == value for name, value in place.items())]
    by_name = {(row["norm"], row["implementation"]): row for row in rows}
    for (norm, implementation), row in by_name.items():
        whole = by_name.get((norm, "reference"))
        if implementation == "fused" and whole:
            share = row["memory_bytes_per_cloud"] / whole["memory_bytes_per_cloud"]
            at_least(f"training step, {norm}, batch 32: speed-up", row["speedup"]["median"], SPEEDUP)
            at_most(f"training step, {norm}, batch 32: share of the memory", share, MEMORY)
    for row in _all("micro_batch", findings):
        if row["implementation"] != "reference":
            what = f"micro-batch 1, {row['norm']}, {row['implementation']}: speed-up"
            at_least(what, row["speedup"]["median"], SPEEDUP)
    for row in _all("epoch", findings):
        graph = ", CUDA graph" if row["cuda_graph"] else ""
        what = f"epoch of 9,840 clouds, micro-batch {row['micro_batch']}, precision {row['precision']}{graph}: seconds"
        at_most(what, row["seconds_of_9840_clouds"], EPOCH_SECONDS)
    return found


def report(findings: list[Finding]) -> str:
    """Return all of it as Markdown; `findings` are the lines of `findings.jsonl` from one start of the check."""
    blocks = []
    for environment in _all("environment", findings):
        blocks.append(", ".join(f"{name} {value}" for name, value in environment.items()))
    comparisons, ended = _all("comparison", findings), _with("finished", findings)
    if comparisons:
        good = sum(comparison["agrees"] for comparison in comparisons)
        blocks.append(f"## Right\n\n{good} of {len(comparisons)} comparisons agree.")
    blocks += [f"The tests on the card: {line}" for line in _all("tests", findings)]
    if rows := _all("row", findings):
        rates = [f"Copies read and write {rate / 1e9:.0f} GB/s." for rate in _all("copy_bandwidth", findings)]
        blocks += ["## Fast", *rates, _speed_table(rows)]
    if micro_batches := _all("micro_batch", findings):
        lines = ["| micro-batch 1: norm | implementation | ms per cloud | speed-up |", "|---|---|---|---|"]
        for row in micro_batches:
            milliseconds, speedup = row["milliseconds_per_cloud"]["median"], row["speedup"]["median"]
            lines.append(f"| `{row['norm']}` | {row['implementation']} | {milliseconds:.3g} | {speedup:.3g} |")
        blocks.append("\n".join(lines))
    if cells := _all("cell", findings):
        blocks.append(f"## Learning\n\n{markdown_table(cells)}")
    if measured := targets(findings):
        lines = ["## Targets", "", "| what | measured | target | met |", "|---|---|---|---|"]
        for what, figure, bound, met in measured:
            lines.append(f"| {what} | {figure:.3g} | {bound} | {'yes' if met else 'no'} |")
        blocks.append("\n".join(lines))
    lines = ["## Steps", "", "| step | seconds |", "|---|---|"]
    lines += [f"| {finding['step']} | {finding['seconds']:.0f} |" for finding in ended]
    blocks.append("\n".join(lines))
    sentences = failures(findings)
    shown = "\n".join(f"- {sentence}" for sentence in sentences) or "Nothing failed or disagreed."
    blocks.append(f"## Failed or disagreed\n\n{shown}")
    return "\n\n".join(blocks) + "\n"


def _speed_table(rows: list[Finding]) -> str:
    """Return a line a row: time per cloud, speed-up, memory, and the larger of the floors of products and copies."""
    names = ("mode", "norm", "precision", "num_points", "batch_size", "implementation")
    figures = ("ms", "speed-up", "MB", "floor of products, ms", "floor of copies, ms", "times the larger floor")
    lines = [[*names, *figures]]
    for row in rows:
        cells = [str(row[name]) for name in names]
        if row["refusal"]:
            cells += [f"not run: {row['refusal']}", *[""] * 5]
        else:
            values = (
                row["milliseconds_per_cloud"]["median"],
                row.get("speedup", {}).get("median"),
                row["memory_bytes_per_cloud"] / 1e6,
                row["floor_milliseconds_per_cloud"]["median"],
                row["copy_floor_milliseconds_per_cloud"],
                row["times_both_floors"],
            )
            cells += ["-" if value is None else f"{value:.3g}" for value in values]
        lines.append(cells)
    return "\n".join(markdown(lines))


def _with(name: str, findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if name in finding]


def _all(name: str, findings: list[Finding]) -> list[Any]:
    return [finding[name] for finding in findings if name in finding]
