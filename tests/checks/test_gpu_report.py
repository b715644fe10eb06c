"""The tables of a card's check say what was found, and what was not."""

from typing import Any

from scripts.checks import gpu_report


def row(implementation: str, milliseconds: float, memory: float, **other: Any) -> dict[str, Any]:
    spread = {"median": milliseconds, "min": milliseconds, "max": milliseconds}
    return {
        "mode": "train", "norm": "ws_gn", "num_points": 1024, "batch_size": 32, "precision": "32", "refusal": None,
        "implementation": implementation, "milliseconds_per_cloud": spread, "memory_bytes_per_cloud": memory,
        "speedup": {"median": 1.4 / milliseconds}, "floor_milliseconds_per_cloud": {"median": 0.1},
        "copy_floor_milliseconds_per_cloud": 0.01, "times_both_floors": milliseconds / 0.1, **other,
    }  # fmt: skip


def lines(**findings: Any) -> list[dict[str, Any]]:
    return [{"step": "a step", name: value} for name, values in findings.items() for value in values]


def test_targets_are_those_of_batch_32() -> None:
    epoch = {"micro_batch": 32, "precision": "32", "cuda_graph": True, "seconds_of_9840_clouds": 2.5}
    micro = [
        {"norm": "ws_gn", "implementation": name, "speedup": {"median": s}}
        for name, s in (("reference", 1), ("fused", 5))
    ]
    rows = [row("reference", 1.4, 800.0), row("fused", 0.2, 90.0), row("fused", 9.0, 900.0, batch_size=4)]
    found = gpu_report.targets(lines(row=rows, micro_batch=micro, epoch=[epoch]))
    assert [(round(figure, 4), bound, met) for _, figure, bound, met in found] == [
        (7.0, "≥ 6", True), (0.1125, "≤ 0.125", True), (5, "≥ 6", False), (2.5, "≤ 2", False),
    ]  # fmt: skip
    refused = row("reference", 1.4, 800.0) | {"refusal": "out of memory"}
    assert gpu_report.targets(lines(row=[refused, row("fused", 0.2, 90.0)])) == []


def test_report_names_what_failed_and_what_disagreed() -> None:
    comparisons = [{"name": f"knn {i}", "error": 0.5 * i, "allowed": 0.1, "agrees": i == 0} for i in (0, 1)]
    failed = {"step": "compile", "what": "torch.compile", "failure": "RuntimeError: no compiler"}
    rows = [row("fused", 0.2, 90e6), row("reference", 9.0, 1.0, refusal="out of memory")]
    text = gpu_report.report([*lines(comparison=comparisons, row=rows), failed])
    assert "1 of 2 comparisons agree" in text
    assert "| fused | 0.2 | 7 | 90 | 0.1 | 0.01 | 2 |" in text
    assert "| reference | not run: out of memory |" in text
    assert "- compile, torch.compile: RuntimeError: no compiler" in text
    assert "- knn 1: error 0.5, allowed 0.1" in text and "- knn 0" not in text
    assert "Nothing failed or disagreed." in gpu_report.report(lines(comparison=comparisons[:1]))
