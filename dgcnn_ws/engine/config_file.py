"""Settings in a file: the config.json of another run, or YAML with some of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from dgcnn_ws.engine.folder.checkpoint import read_json
from dgcnn_ws.engine.recipe import Recipe, as_config, complete, from_config
from dgcnn_ws.errors import InputError

DECIDE = ("preset", "norm", "optimizer", "dataset")  # what the values of other settings follow from


def read_recipe(path: Path, usual: Recipe = Recipe()) -> Recipe:  # noqa: B008 (frozen)
    """Return the recipe in a file: all of a run's where it ends in .json, else what YAML names, by the flags' names.

    What YAML leaves out is as in `usual`.

    Raises InputError where the file is missing or damaged, or names something that is no setting.
    """
    if path.suffix == ".json":
        return from_config(read_json(path), path)
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: --config takes a run's config.json, or YAML.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is neither a run's config.json nor YAML.") from error
    content = {} if content is None else content  # nothing but comments
    known = as_config(Recipe())
    if not isinstance(content, dict):
        raise InputError(f"{path} should name settings, a line each: `lr: 0.001`.")
    settings = {str(name).replace("-", "_"): number(value) for name, value in content.items()}
    for name, value in settings.items():
        if isinstance(known.get(name), str) and type(value) is int:  # precision: 32
            settings[name] = str(value)
        if name not in known:
            raise InputError(f"{path}: there is no setting {name!r}. They are called as the flags of train --help.")
        if name in DECIDE and not isinstance(value, str):
            raise InputError(f"{path}: {name} is {value!r}, not a word.")
    words: dict[str, Any] = {name: settings[name] for name in DECIDE if name in settings}
    if "data_root" in settings:
        words["data_root"] = Path(str(settings["data_root"]))
    # Of the example what the file does not name is left behind; `est` is a head that goes with whatever it does name.
    example = complete(replace(Recipe(devices=1, nodes=1, head_norm="est"), **words))
    whole = from_config(as_config(example) | settings | {"dataset": example.dataset}, path)
    named = {name: getattr(whole, name) for name in settings}
    return replace(usual, **named | words)


def number(value: Any) -> Any:
    """Return what was meant: YAML 1.1, which PyYAML reads, takes 1e-3 for a word."""
    if isinstance(value, str) and "e" in value.lower():
        try:
            return float(value)
        except ValueError:
            pass
    return value
