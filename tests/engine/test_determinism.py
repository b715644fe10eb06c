"""The same seed gives the same bits on as many threads, however many; and CUDA can be held to it."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from dgcnn_ws.datasets.built_in import shapes
from dgcnn_ws.engine.recipe import HeadNorm, Recipe, build_model, complete
from dgcnn_ws.engine.training import Run
from dgcnn_ws.nn.norm import one_update

# What torch says of `use_deterministic_algorithms`: on CUDA these have no form whose bits repeat.
NOT_ON_CUDA = (
    "avg_pool3d_backward", "adaptive_avg_pool2d_backward", "adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward", "fractional_max_pool", "max_unpool", "upsample", "reflection_pad", "nll_loss2d",
    "ctc_loss", "embedding_bag", "put", "histc", "median", "grid_sampler", "cumsum", "scatter_reduce", "bincount",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


def train_step(recipe: Recipe, precision: torch.dtype) -> dict[str, torch.Tensor]:
    """Return weights and gradients after a step on clouds large enough to be shared among threads."""
    torch.manual_seed(0)
    model = build_model(recipe, 5).train()
    with one_update(model), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = F.cross_entropy(model(torch.randn(2, 3, 256)).float(), torch.arange(2))
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return gradients | {f"{name} after": value for name, value in model.state_dict().items()}


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("norm", ["ws_gn", "bn", "ws_bcn"])
def test_the_same_bits_on_the_same_number_of_threads(norm: str, precision: torch.dtype) -> None:
    head_norm: HeadNorm = "bn" if norm == "bn" else "est"
    recipe = complete(Recipe(norm=norm, head_norm=head_norm, emb_dims=128, k=8, num_points=256))
    for threads in (1, 3):
        torch.set_num_threads(threads)
        one, other = train_step(recipe, precision), train_step(recipe, precision)
        assert [name for name in one if not torch.equal(one[name], other[name])] == []


class Operators(TorchDispatchMode):
    """Collects the names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def recipe(root: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr(shapes, "PER_CLASS", {"train": 3, "test": 1})
    monkeypatch.setattr(Run, "finish", dict)  # neither the test set nor pictures
    small: dict[str, Any] = {"num_points": 32, "k": 4, "emb_dims": 16, "batch_size": 16, "epochs": 1}
    return Recipe(dataset="shapes", data_root=root, deterministic=True, **small)


@pytest.mark.parametrize(
    "settings",
    [{}, {"head_norm": "bn_whole", "micro_batch": 4}, {"norm": "bn"}, {"task": "segment"}, {"preset": "paper"}],
    ids=str,
)
def test_training_needs_nothing_that_cuda_has_no_deterministic_form_of(
    recipe: Recipe, tmp_path: Path, settings: dict[str, Any]
) -> None:
    run = Run(complete(replace(recipe, **settings)), tmp_path / "run", quiet=True)
    with Operators() as seen:
        run.train()
    assert "_log_softmax_backward_data" in seen.names  # it has seen the training
    assert [name for name in seen.names if name.rstrip("_").startswith(NOT_ON_CUDA)] == []


def test_deterministic_asks_torch_and_cublas_and_changes_no_bit_on_the_cpu(recipe: Recipe, tmp_path: Path) -> None:
    runs = []
    for deterministic in (False, True):
        run = Run(complete(replace(recipe, deterministic=deterministic)), tmp_path / str(deterministic), quiet=True)
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        run.train()
        runs.append(run.model.state_dict())
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
