"""What a card is timed at beside single steps: copies, micro-batches with and without a CUDA graph, whole epochs."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dgcnn_ws.benchmark.benchmark import CHANNELS, GROUPS, HIDDEN, NUM_CLASSES, Setting, Step, time_rounds
from dgcnn_ws.engine.machine.cuda_graph import Replay
from dgcnn_ws.engine.recipe import Recipe
from dgcnn_ws.engine.training import Run
from dgcnn_ws.models import DGCNN
from dgcnn_ws.nn.norm import one_update


def copy_bandwidth(device: torch.device, size: int) -> float:
    """Return the bytes read and written in a second while `size` bytes are copied on `device`: the best round."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    setting = Setting("copy", "none", 1, 1, device=str(device))
    times = time_rounds(setting, {"copy": lambda _: target.copy_(source)}, rounds=5, patience=5.0)["copy"]
    return 2 * size / min(times)


def unavoidable_bytes(setting: Setting) -> int:
    """Return the bytes of one cloud that pass through memory where layers follow one another, nothing kept on chip.

    N points, widths C_0 = 3, C_1, ...: each EdgeConv reads its input and writes its output, the shared convolution
    reads them all: N (Σ (C_i + C_{i+1}) + Σ C_{i+1}) numbers. A training step moves as many for the gradients, and
    reads what the weights' gradients need again.
    """
    layers = sum(c_in + c_out for c_in, c_out in pairwise(CHANNELS))
    numbers = setting.num_points * (layers + (0 if setting.mode == "layers" else sum(CHANNELS[1:])))
    return numbers * (2 if setting.precision == "bf16" else 4) * (1 if setting.mode == "inference" else 3)


def micro_batch_step(setting: Setting, implementation: str, replayed: bool) -> Step:
    """Return an optimizer step on the first so many clouds, one cloud a forward pass; as a CUDA graph if `replayed`."""
    torch.manual_seed(0)
    model = DGCNN(
        NUM_CLASSES,
        setting.k,
        setting.norm,
        "est",
        implementation,
        widths=CHANNELS[1:],
        emb_dims=setting.emb_dims,
        hidden=HIDDEN,
        groups=GROUPS,
    ).to(setting.device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    points = F.normalize(torch.randn(setting.batch_size, 3, setting.num_points), dim=1).to(setting.device)
    labels = torch.arange(setting.batch_size, device=setting.device) % NUM_CLASSES

    def accumulate(cloud: Tensor, label: Tensor) -> None:
        with setting.autocast():
            loss = F.cross_entropy(model(cloud), label)
        loss.backward()

    run: Callable[[Tensor, Tensor], None] = Replay(accumulate, model) if replayed else accumulate

    def step(clouds: int) -> None:
        with one_update(model):
            for i in range(clouds):
                run(points[i : i + 1], labels[i : i + 1])
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)

    return step


def write_random_clouds(root: Path, num_train: int, num_test: int, num_points: int) -> None:
    """Write clouds without meaning under ModelNet40's name: what an epoch costs does not depend on what it learns."""
    folder = root / "modelnet40_ply_hdf5_2048"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "shape_names.txt").write_text("".join(f"class{i:02d}\n" for i in range(NUM_CLASSES)))
    generator = np.random.default_rng(0)
    for split, count in (("train", num_train), ("test", num_test)):
        (folder / f"{split}_files.txt").write_text(f"ply_data_{split}0.h5\n")
        points = generator.standard_normal((count, num_points, 3), dtype=np.float32)
        points /= np.linalg.norm(points, axis=2, keepdims=True)
        with h5py.File(folder / f"ply_data_{split}0.h5", "w") as file:
            file["data"] = points
            file["label"] = (np.arange(count) % NUM_CLASSES).astype(np.uint8)[:, None]


def last_epoch(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Train, and return seconds and clouds of the last epoch, and its training loss; the first ones warm up."""
    run = Run(recipe, folder, quiet=True, test=False)
    run.train()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = lines[-1]["seconds"] - (lines[-2]["seconds"] if len(lines) > 1 else 0)
    return {
        "seconds": seconds,
        "clouds": len(run.loader) * recipe.batch_size,
        "train_loss": lines[-1]["train_loss"],
    }
