"""Going on from a trained network: what is taken over, what is new, and a frozen body that does not move."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgcnn_ws.engine.fine_tuning import freeze_body, like_checkpoint, take_over, train_mode
from dgcnn_ws.engine.folder.checkpoint import save_checkpoint
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, build_optimizer, complete
from dgcnn_ws.errors import InputError

CLASSES, PARTS = ["a", "b", "c"], ["top", "leg"]
SEGMENT = {"task": "segment", "k": 5, "emb_dims": 24}
KINDS = {
    "dgcnn": {"k": 5, "emb_dims": 24, "num_points": 40, "groups": 16},
    "paper": {"preset": "paper", "norm": "bn", "k": 5, "emb_dims": 24, "num_points": 40},
    "segment": SEGMENT,
    "ws_bcn": {"norm": "ws_bcn", "k": 5, "emb_dims": 24},
}


@pytest.fixture(params=KINDS)
def start(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Recipe, torch.nn.Module]:
    recipe = complete(Recipe(**KINDS[request.param]))
    parts = PARTS if recipe.task == "segment" else []
    torch.manual_seed(3)
    model = build_model(recipe, len(CLASSES), len(parts))
    content = {"config": as_config(recipe), "class_names": CLASSES, "part_names": parts, "model": model.state_dict()}
    save_checkpoint(tmp_path / "best.pt", content)
    return tmp_path / "best.pt", recipe, model


def make(start: Path, classes: list[str], parts: list[str]) -> tuple[Recipe, torch.nn.Module, list[str]]:
    recipe = complete(replace(like_checkpoint(Recipe(), start), start=str(start)))
    parts = parts if recipe.task == "segment" else []
    torch.manual_seed(4)
    model = build_model(recipe, len(classes), len(parts))
    return recipe, model, take_over(model, recipe, classes, parts)


@pytest.mark.parametrize("classes", [CLASSES, ["x", "y", "z"], ["b", "a", "c"], ["a", "b", "c", "d"]])
def test_all_but_the_layer_of_other_classes(start: tuple[Path, Recipe, torch.nn.Module], classes: list[str]) -> None:
    path, recipe, theirs = start
    _, model, new = make(path, classes, PARTS)
    expected = theirs.state_dict()
    for name, value in model.state_dict().items():
        assert (name in new) != (value.shape == expected[name].shape and torch.equal(value, expected[name])), name
    if classes == CLASSES:
        assert new == []
    elif recipe.task == "classify":
        assert len(new) == 2 and all(expected[name].shape[0] == len(CLASSES) for name in new)
    else:
        assert new == ["category.0.bias", "category.0.weight"]


def test_settings_of_the_network_are_the_checkpoints(start: tuple[Path, Recipe, torch.nn.Module]) -> None:
    path, recipe, _ = start
    found = complete(like_checkpoint(Recipe(epochs=7, lr=0.01), path))
    for name in ("task", "preset", "norm", "head_norm", "groups", "k", "emb_dims", "num_points"):
        assert getattr(found, name) == getattr(recipe, name)
    assert (found.epochs, found.lr) == (7, 0.01)
    other = complete(replace(found, k=6, start=str(path)))
    with pytest.raises(InputError, match=r"is a network of --k 5, not 6: leave --k out"):
        take_over(build_model(other, 3, 2), other, CLASSES, PARTS if recipe.task == "segment" else [])


def test_a_frozen_body_does_not_move(start: tuple[Path, Recipe, torch.nn.Module]) -> None:
    recipe, model, _ = make(start[0], ["x", "y"], PARTS)
    freeze_body(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = build_optimizer(recipe, model)
    train_mode(model, frozen=True)
    category = (torch.tensor([0, 1, 0, 1]),) if recipe.task == "segment" else ()
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 40), *category).square().sum().backward()
        optimizer.step()
    heads = ("head.", "point_convs.", "last.", "category.", "pooled_norm.")
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith(heads) for name in moved)
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name for name, _ in model.named_parameters() if name.startswith(heads)} == learned
