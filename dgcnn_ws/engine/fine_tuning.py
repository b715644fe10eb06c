"""Going on from a network that is trained: its weights in a new run, on other data, for other classes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from dgcnn_ws.engine.folder.checkpoint import load_checkpoint, restore_model
from dgcnn_ws.engine.recipe import Recipe, as_config, from_config, network_head
from dgcnn_ws.errors import InputError

# The settings that make the network, which are those of the checkpoint.
NETWORK = ("task", "preset", "norm", "head_norm", "groups", "k", "emb_dims", "features", "graph")
HEADS = ("head", "point_convs", "last", "category", "pooled_norm")  # the rest is the body, which `--freeze` keeps


def like_checkpoint(recipe: Recipe, path: Path, with_data: bool = False) -> Recipe:
    """Return `recipe` with the checkpoint's settings for the network, its number of points, and maybe its data.

    Raises InputError as `load_checkpoint` does.
    """
    stored = from_config(load_checkpoint(path)["config"], path)
    names = (*NETWORK, "num_points") + ("dataset", "data_root") * with_data
    return replace(recipe, **{name: getattr(stored, name) for name in names})


def take_over(model: nn.Module, recipe: Recipe, class_names: list[str], part_names: list[str]) -> list[str]:
    """Put the weights of the checkpoint `recipe.start` in a network that the recipe has made.

    The layer that names classes, or parts, stays as it was drawn where these are not the checkpoint's, in its order;
    so does the one that reads a cloud's category.

    Args:
        class_names: of the data that the network is to learn; `part_names` too.

    Returns:
        The names of the weights that stay as they were drawn.

    Raises InputError where the checkpoint cannot be read, or its network is of other settings.
    """
    path = Path(recipe.start)
    content = load_checkpoint(path)
    network, stored, their_classes = restore_model(path, content)
    ours, theirs = (as_config(replace(one, head_norm=network_head(one.head_norm))) for one in (recipe, stored))
    for name in NETWORK:
        if ours[name] != theirs[name]:
            flag = f"--{name.replace('_', '-')}"
            is_of = f"of {flag} {theirs[name]}" if theirs[name] else f"without {flag}"
            raise InputError(f"--from {path} is a network {is_of}, not {ours[name] or 'without'}: leave {flag} out.")
    new = new_layers(model, recipe, class_names != their_classes, part_names != content.get("part_names", []))
    drawn = {name: value for name, value in model.state_dict().items() if name.startswith(new)}
    model.load_state_dict(network.state_dict() | drawn)
    return sorted(drawn)


def new_layers(model: Any, recipe: Recipe, other_classes: bool, other_parts: bool) -> tuple[str, ...]:
    """Return what the names of weights begin with that other classes, or other parts, have no use for."""
    if recipe.task == "segment":
        return ("last.",) * other_parts + ("category.",) * other_classes
    return (f"head.layers.{len(model.head.layers) - 1}.",) * other_classes


def freeze_body(model: nn.Module) -> None:
    """Let training change the head alone."""
    for name, child in model.named_children():
        if name not in HEADS:
            child.requires_grad_(False)


def train_mode(model: nn.Module, frozen: bool) -> None:
    """Put a network in training mode; a frozen body stays as it evaluates, so that none of its statistics move."""
    model.train()
    for name, child in model.named_children():
        if frozen and name not in HEADS:
            child.eval()
