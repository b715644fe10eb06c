"""What each process of tests/engine/parallel/test_processes.py does; the first one writes what it saw to a file.

python train_in_processes.py DATA_ROOT FOLDER [PROCESSES]; without the number there are as many as torchrun started.
"""

import atexit
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dgcnn_ws.datasets import PartClouds, PointClouds
from dgcnn_ws.engine import training
from dgcnn_ws.engine.parallel.launch import one_voice
from dgcnn_ws.engine.parallel.processes import ALONE, Agreed, Processes
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.scoring.evaluation import evaluate, evaluate_by_batch_statistics
from dgcnn_ws.engine.scoring.segmentation import evaluate_parts
from dgcnn_ws.engine.training import Run
from dgcnn_ws.errors import InputError
from dgcnn_ws.models import DGCNN, DGCNNSeg
from scripts.checks.traffic import Collectives

BATCH = 12
LINUX = Path("/proc/self/task").exists()
SCORES = (evaluate, evaluate_by_batch_statistics, evaluate_parts)
# preset, norm, head norm, --sync-bn, micro-batch of each process
STEPS = {
    "gn": ("dgcnn", "gn", "est", False, 1),
    "ws_gn": ("dgcnn", "ws_gn", "est", False, 1),
    "ws_bcn": ("dgcnn", "ws_bcn", "est", False, 2),
    "bn": ("dgcnn", "bn", "est", False, 1),
    "bn_whole": ("dgcnn", "ws_gn", "bn_whole", False, 2),
    "sync_bn": ("dgcnn", "bn", "bn", True, 1),
    "sync_bn, reference": ("paper", "ws_bn", "bn", True, 2),  # whose T-Net runs norms on the edge tensor itself
}


def take_step(name: str, processes: int, micro_batch: int, data_root: Path, folder: Path) -> dict[str, Any]:
    """Return gradients, statistics and collectives of one optimizer step in float64."""
    preset, norm, head_norm, sync_bn, _ = STEPS[name]
    recipe = Recipe(
        dataset="modelnet10", data_root=data_root, preset=preset, norm=norm, head_norm=head_norm, batch_size=BATCH,
        micro_batch=micro_batch, devices=processes, nodes=1, sync_bn=sync_bn, num_points=16, k=4, emb_dims=32,
        dropout=0.0, device="cpu",
    )  # fmt: skip
    build = training.build_model
    training.build_model = lambda *args: build(*args).double()
    run = Run(complete(recipe), folder / name, quiet=True)
    training.build_model = build
    run.train_set.points = run.train_set.points.double()
    run.optimizer.step = run.optimizer.zero_grad = lambda **_: None
    run.model.train()
    points, labels = next(run.loader.epoch(0))
    with Collectives() as sent:
        run.optimizer_step(points.double(), labels)
    model = run.model
    result = {
        "gradient": torch.cat([p.grad.flatten() for p in model.parameters()]),
        "statistics": torch.cat([b.flatten().double() for n, b in model.named_buffers() if "pending" not in n]),
        "sums": run.processes.total(run.sums),
        "calls": dict(sent.calls),
        "bytes": dict(sent.bytes),
    }
    copy = result["gradient"].clone()
    result["the same everywhere"] = torch.equal(run.processes.total(copy), result["gradient"] * processes)
    return result


def all_scores(processes: Processes) -> list[Any]:
    """Return scores of sets of which no size is a multiple of the batch or of the processes."""
    torch.manual_seed(0)
    scores: list[Any] = []
    model, seg = DGCNN(3, 4, emb_dims=32), DGCNNSeg(3, 4, num_categories=2, emb_dims=32)
    by_batch = DGCNN(3, 4, "bn", emb_dims=32)
    table = torch.tensor([[True, True, False], [True, False, True]])
    for size in (1, 5, 11):
        points, labels = torch.randn(size, 8, 3), torch.arange(size) % 3
        clouds = PointClouds(points, labels, ["a", "b", "c"], "test")
        scores += [evaluate(model, clouds, batch, torch.device("cpu"), 2, processes=processes) for batch in (2, 16)]
        scores.append(evaluate_by_batch_statistics(by_batch, clouds, 2, torch.device("cpu"), processes=processes))
        clouds = PointClouds(points, labels % 2, ["d", "e"], "test")
        parts = PartClouds(clouds, torch.randint(0, 3, (size, 8)), ["a", "b", "c"], table)
        scores.append(evaluate_parts(seg, parts, 2, torch.device("cpu"), processes=processes))
    return [one.as_json() for one in scores]


class Broken(nn.Module):
    """A network that the last process cannot ask."""

    def __init__(self, processes: Processes, answers: tuple[int, ...]) -> None:
        super().__init__()
        self.last, self.answers = processes.rank == processes.count - 1, answers

    def forward(self, points: Tensor, categories: Tensor | None = None) -> Tensor:
        if self.last:
            raise InputError("no such cloud.")
        return torch.zeros(len(points), *self.answers)


def broken_scoring(score: Callable[..., Any], processes: Processes) -> str:
    """Return what is said of a set of which one process cannot score its part."""
    clouds: Any = PointClouds(torch.randn(11, 8, 3), torch.arange(11) % 2, ["a", "b"], "test")
    answers: tuple[int, ...] = (2,)
    if score is evaluate_parts:
        table = torch.tensor([[True, True, False], [True, False, True]])
        clouds, answers = PartClouds(clouds, torch.randint(0, 3, (11, 8)), ["a", "b", "c"], table), (3, 8)
    try:
        score(Broken(processes, answers), clouds, 2, torch.device("cpu"), processes=processes)
    except Agreed as agreed:
        return str(agreed)
    return "scored"


def agree(processes: Processes) -> dict[str, Any]:
    """Return what each kind of agreement came to, the same in every process."""
    last = processes.rank == processes.count - 1
    found: dict[str, Any] = {"largest": processes.largest(processes.rank, -processes.rank)}
    for name, error in (("input", InputError("no such cloud.")), ("disk", OSError(28, "No space left", "last.pt"))):
        try:
            with processes.together():
                if last:
                    raise error
        except Agreed as agreed:
            found[name] = str(agreed)

    def batches() -> Any:
        yield "first"
        if last:
            raise InputError("the file is gone.")
        yield "second"

    seen = []
    try:
        for batch, flags in processes.in_step(batches(), lambda: (int(last), 0)):
            seen.append((batch, flags))
    except Agreed as agreed:
        found["reading"] = (seen, str(agreed))
    found["scoring"] = [broken_scoring(score, processes) for score in SCORES]
    found["turns"] = processes.total(torch.bincount(torch.tensor(list(processes.turns(range(11)))), minlength=11))
    return found


def gloo_threads() -> list[str]:
    """Return the names of gloo's threads in this process (on Linux)."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return sorted(name for name in names if "gloo" in name)


def say_what_lives() -> None:
    """Name the threads that will meet Python's end: one inside torch may abort the process then."""
    os.write(2, " ".join(["alive at the end:", *gloo_threads()]).encode() + b"\n")  # stderr itself may be silent by now


def main(data_root: Path, folder: Path, processes: int | None = None) -> None:
    if LINUX:
        atexit.register(say_what_lives)  # the first to register is the last to be called
    torch.set_num_threads(1)
    processes = complete(Recipe(devices=processes, batch_size=BATCH)).processes
    steps = {name: take_step(name, processes, STEPS[name][-1], data_root, folder) for name in STEPS}
    with patch.object(dist, "get_backend", return_value="nccl"):  # beside which agreements have a group of their own
        run = Run(complete(Recipe(dataset="modelnet10", data_root=data_root, num_points=16, k=4, emb_dims=32,
                                  device="cpu", batch_size=BATCH, devices=processes, nodes=1)),
                  folder / "any", quiet=True)  # fmt: skip
    assert processes == 1 or run.processes.control is not None
    agreed = agree(run.processes)
    collected = run.processes.largest(int(agreed["largest"] == (processes - 1, 0) and len(agreed) == 6))
    scores = all_scores(run.processes)
    if run.processes.first:
        assert collected and all_scores(ALONE)
        content = {"steps": steps, "agreed": agreed, "scores": scores, "alone": all_scores(ALONE)}
        torch.save(content, folder / "seen.pt")
    assert not LINUX or len(gloo_threads()) > 2
    try:  # as main.py has it
        with one_voice(), run.processes.together():
            if run.processes.rank == processes - 1:
                raise InputError("the last process cannot.")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
