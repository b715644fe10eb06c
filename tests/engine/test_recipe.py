"""Settings: what presets fill in, the schedules' published numbers, and every refusal."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from dgcnn_ws.datasets import DATASETS
from dgcnn_ws.datasets.augment import AUGMENTATIONS, ROTATIONS
from dgcnn_ws.engine.machine.arithmetic import ROUNDED_TO
from dgcnn_ws.engine.recipe import (
    LEARNING_RATES,
    PRESETS,
    WORDS,
    Dataset,
    Recipe,
    as_config,
    build_model,
    build_optimizer,
    complete,
    from_config,
    learning_rate,
)
from dgcnn_ws.engine.task import TASKS
from dgcnn_ws.errors import InputError
from dgcnn_ws.models import DGCNN, MODELS, DGCNNTNet, dgcnn, dgcnn_tnet
from dgcnn_ws.models.edge_convs import GRAPHS
from dgcnn_ws.models.head import HEAD_NORMS
from dgcnn_ws.nn.norm import NORMS

SOURCE = Path("a/config.json")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_of_every_preset_has_a_complete_recipe(preset: str, norm: str) -> None:
    recipe = complete(Recipe(preset=preset, norm=norm))
    assert None not in as_config(recipe).values()
    assert recipe.head_norm == ("bn" if norm in ("bn", "ws_bn") else {"dgcnn": "bn_whole", "paper": "gn"}[preset])
    assert recipe.micro_batch == recipe.batch_size == 32
    assert recipe.epochs == 250


@pytest.mark.parametrize(
    "change, head",
    [
        ({"micro_batch": 1}, "bn_whole"),
        ({"batch_size": 64, "micro_batch": 2}, "bn_whole"),
        ({"cuda_graph": True}, "bn_whole"),
        ({"norm": "bn", "batch_size": 8}, "bn"),
        ({"preset": "paper", "batch_size": 8}, "gn"),
        # Where the whole batch is small, or cannot be had, estimates are better, or all there is.
        ({"batch_size": 16}, "est"),
        ({"batch_size": 1}, "est"),
        ({"cuda_graph": True, "micro_batch": 4}, "est"),
        ({"task": "segment"}, "est"),
    ],
)
def test_the_default_head_sees_the_whole_batch_where_that_is_enough(change: dict[str, Any], head: str) -> None:
    assert complete(Recipe(**change)).head_norm == head


def test_every_word_that_the_help_lists_stands_for_something() -> None:
    tables = {
        "task": TASKS,
        "preset": PRESETS,
        "norm": NORMS,
        "head_norm": [HEAD_NORMS[0], "bn_whole", *HEAD_NORMS[1:]],  # another way to train the first
        "precision": [*ROUNDED_TO, "auto"],
    }
    tables |= {
        "optimizer": LEARNING_RATES,
        "augment": AUGMENTATIONS,
        "select": ("val", "test"),
        "rotate": ROTATIONS,
        "graph": GRAPHS,
    }
    tables |= {"class_weights": ("none", "balanced")}
    assert {name: get_args(words) for name, words in WORDS.items()} == {n: tuple(t) for n, t in tables.items()}
    assert {name: preset.groups for name, preset in PRESETS.items()} == {
        "dgcnn": dgcnn.GROUPS,
        "paper": dgcnn_tnet.GROUPS,
    }
    assert (*get_args(Dataset), "folder") == tuple(DATASETS) and tuple(PRESETS) == tuple(MODELS)


def test_what_the_user_gives_is_kept() -> None:
    given = {"head_norm": "ln", "groups": 4, "micro_batch": 8, "epochs": 3, "lr": 0.5, "optimizer": "sgd"}
    given |= {"weight_decay": 0.0, "augment": "none"}
    recipe = complete(Recipe(**given))
    assert {name: getattr(recipe, name) for name in given} == given


def test_another_optimizer_takes_its_own_learning_rate() -> None:
    assert complete(Recipe(norm="bn", optimizer="sgd")).lr == 0.1


def test_cosine_goes_from_the_peak_to_a_hundredth() -> None:
    recipe = complete(Recipe(lr=0.1, epochs=10))
    rates = [learning_rate(recipe, step, 100) for step in range(1000)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[500] == pytest.approx(0.1 * (0.01 + 0.99 / 2))
    assert rates[-1] == pytest.approx(0.001, rel=1e-3)
    assert rates == sorted(rates, reverse=True)


def test_the_papers_staircase_falls_every_200000_samples_to_a_floor() -> None:
    recipe = complete(Recipe(preset="paper", lr=1e-3))
    steps_per_epoch = 307  # ModelNet40 at batch 32
    assert learning_rate(recipe, 6249, steps_per_epoch) == pytest.approx(1e-3)
    assert learning_rate(recipe, 6250, steps_per_epoch) == pytest.approx(0.7e-3)
    assert learning_rate(recipe, 250 * 307 - 1, steps_per_epoch) == pytest.approx(1e-3 * 0.7**12)
    assert learning_rate(recipe, 1_000_000, steps_per_epoch) == pytest.approx(1e-5)


def test_warm_up_rises_linearly() -> None:
    recipe = complete(Recipe(lr=0.1, epochs=100, warmup_epochs=2))
    rates = [learning_rate(recipe, step, 5) for step in range(10)]
    assert rates == pytest.approx([0.1 * (step + 1) / 10 for step in range(10)], rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "layer"}, r"--norm 'layer' is unknown.*ws_gn"),
        ({"head_norm": "bcn"}, r"--head-norm 'bcn' is unknown"),
        ({"preset": "big"}, r"--preset 'big' is unknown"),
        ({"dataset": "cars"}, r"--dataset 'cars' is unknown.*shapes"),
        ({"optimizer": "lion"}, r"--optimizer 'lion' is unknown"),
        ({"augment": "flip"}, r"--augment 'flip' is unknown"),
        ({"select": "train"}, r"--select 'train' is unknown"),
        ({"precision": "8"}, r"--precision '8' is unknown"),
        ({"k": 65, "num_points": 64}, r"k=65 neighbours need at least 65 points; these clouds have 64"),
        ({"k": 0}, r"--k is 0, but must be at least 1"),
        ({"epochs": 0}, r"--epochs is 0"),
        ({"lr": float("nan")}, r"--lr is nan"),
        ({"lr": -1.0}, r"--lr is -1.0"),
        ({"seed": -1}, r"--seed is -1"),
        ({"seed": 2**63}, r"--seed 9223372036854775808 is too large"),
        ({"dropout": 1.0}, r"--dropout 1.0"),
        ({"batch_size": 32, "micro_batch": 5}, r"--batch-size 32 is not a multiple of --micro-batch 5"),
        ({"norm": "bn", "micro_batch": 1}, r"BatchNorm head cannot train at --micro-batch 1.*--head-norm est"),
        ({"norm": "ws_gn", "head_norm": "bn", "micro_batch": 1}, r"BatchNorm head cannot train"),
    ],
)
def test_refuses(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        complete(Recipe(**changes))


def test_bn_in_the_body_trains_at_micro_batch_1_with_a_safe_head() -> None:
    assert complete(Recipe(norm="bn", head_norm="est", micro_batch=1)).micro_batch == 1


def test_config_round_trip_and_damage() -> None:
    recipe = complete(Recipe(lr=1.0, warmup_epochs=1))
    config = as_config(recipe)
    assert from_config(config, SOURCE) == recipe
    for name, value in (("k", "20"), ("lr", None), ("norm", "nope"), ("norm", 3)):
        with pytest.raises(InputError, match=name):
            from_config(config | {name: value}, SOURCE)
    del config["groups"]
    with pytest.raises(InputError, match="groups"):
        from_config(config, SOURCE)
    with pytest.raises(InputError, match=r"a/config\.json lack"):
        from_config([1, 2], SOURCE)


def test_builds_what_it_says() -> None:
    recipe = complete(Recipe(emb_dims=64, k=5, optimizer="sgd"))
    model = build_model(recipe, 7)
    assert isinstance(model, DGCNN)
    assert isinstance(build_model(replace(recipe, preset="paper"), 7), DGCNNTNet)
    optimizer = build_optimizer(recipe, model)
    assert optimizer.defaults["momentum"] == 0.9
    assert optimizer.defaults["weight_decay"] == 1e-4


def test_a_folder_given_as_data_set_is_where_its_data_lies(easy_root: Path, tmp_path: Path) -> None:
    folder = easy_root / "modelnet10_ply_hdf5_2048"
    recipe = complete(Recipe(dataset=str(folder)))
    assert (recipe.dataset, recipe.data_root) == ("folder", folder)
    assert complete(recipe) == recipe
    gone = replace(recipe, data_root=tmp_path / "gone")  # a checkpoint outlives its data
    assert from_config(as_config(gone), SOURCE) == gone
    with pytest.raises(InputError, match="or a folder that"):
        complete(Recipe(dataset=str(tmp_path)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"devices": 3}, "--batch-size 8 cannot be shared by 3 processes"),
        ({"devices": 2, "nodes": 2, "norm": "bn", "head_norm": "bn", "micro_batch": 4}, "shared by 4 processes"),
        ({"devices": 2, "cuda_graph": True}, "--cuda-graph records one process's work"),
        ({"devices": 0}, "--devices is 0"),
        ({"sync_bn": True}, "--sync-bn is for batch norms, and --norm ws_gn with --head-norm est has none"),
        ({"head_norm": "bn_whole", "devices": 2, "sync_bn": True}, "with --head-norm bn_whole has none that needs it"),
        ({"head_norm": "bn_whole", "cuda_graph": True}, "which --cuda-graph does not record"),
        ({"head_norm": "bn_whole", "batch_size": 1, "micro_batch": 1}, "needs a --batch-size of 2 or more"),
        ({"head_norm": "bn_whole", "preset": "paper"}, "is for classifiers of --preset dgcnn"),
        ({"head_norm": "bn_whole", "task": "segment"}, "is for classifiers of --preset dgcnn"),
        ({"norm": "bn", "head_norm": "bn", "micro_batch": 1, "devices": 2}, "cannot train at --micro-batch 1"),
    ],
)
def test_refuses_what_processes_cannot_do(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        complete(Recipe(**{"batch_size": 8, "micro_batch": 2} | changes))


def test_a_batch_norm_head_trains_on_one_cloud_a_process() -> None:
    complete(Recipe(norm="bn", micro_batch=1, devices=2, sync_bn=True))


@pytest.mark.parametrize(("multiplies", "expected"), [(True, "bf16"), (False, "32")])
def test_precision_auto_is_what_the_processor_multiplies_fastest(monkeypatch, multiplies: bool, expected: str) -> None:
    monkeypatch.setattr("dgcnn_ws.ops.product.multiplies_bfloat16", lambda device_type: multiplies)
    assert complete(Recipe(precision="auto", device="cpu")).precision == expected
