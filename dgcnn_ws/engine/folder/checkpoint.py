"""A run's files: written whole or not at all, and nothing read from them is ever executed."""

import io
import json
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dgcnn_ws.datasets.fetching.published import MODELNET40
from dgcnn_ws.datasets.frame import PUBLISHED_MODELNET40, Frame, frame_of
from dgcnn_ws.datasets.hdf5 import can_name_classes
from dgcnn_ws.engine.recipe import Recipe, build_model, from_config
from dgcnn_ws.engine.scoring.calibration import COLDEST, HOTTEST
from dgcnn_ws.errors import InputError
from dgcnn_ws.extras import need
from dgcnn_ws.files import replacing
from dgcnn_ws.memory_bound import memory_bound
from dgcnn_ws.models.settings import KEY

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # what `save_pretrained` writes


def write_json(path: Path, content: Any) -> None:
    """Write JSON to `path` in one step."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    """Write a line of JSON a record to `path` in one step."""
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(record) + "\n" for record in records))


def read_json(path: Path) -> Any:
    """Return the JSON in `path`. Raises InputError where it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: there is no run in {path.parent}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not valid JSON.") from error


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers, strings and containers of them to `path` in one step."""
    buffer = io.BytesIO()  # torch.save to a file hides a full disk's OSError behind a RuntimeError
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_tensors(path: Path, harmless: Sequence[Any] = ()) -> Any:
    """Return what `torch.save` wrote to `path`, on the CPU: tensors, numbers, strings and containers of them.

    Args:
        harmless: types that the file may hold besides, as `torch.serialization.safe_globals` takes them.

    Takes at most four times the file's size and 1 GiB of memory (enforced on Linux). Raises InputError where the
    file is missing, holds anything else, or is damaged.
    """
    if not path.is_file():
        wrong = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {wrong}. Checkpoints lie in a run's folder as best.pt and last.pt.")
    data = path.read_bytes()
    try:
        with memory_bound(4 * len(data) + (1 << 30)), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles, of which the exception says enough
            if zipfile.is_zipfile(io.BytesIO(data)):  # torch would unpack compressed tensors of any size
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    unpacked = sum(member.file_size for member in archive.infolist())
                    if unpacked > len(data):
                        raise ValueError("tensors are stored as they are, so they cannot be larger than the file")
                    if archive.testzip() is not None:  # torch does not compare the sums
                        raise ValueError("bytes have changed since they were written")
            with torch.serialization.safe_globals(list(harmless)):
                return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler meets arbitrary bytes with any exception
        raise InputError(f"{path} is not a checkpoint: it is damaged, or something else.") from error


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file. Raises InputError where it is missing, damaged or something else."""
    safetensors = need("safetensors.torch", "hub", str(path))
    if not path.is_file():
        raise InputError(f"{path} does not exist.")
    try:
        return safetensors.load(path.read_bytes())
    except Exception as error:  # its own kinds for a header, torch's for a type that it does not know
        raise InputError(f"{path} is no .safetensors file, or damaged.") from error


def checkpoint_in(path: Path) -> Path:
    """Return the checkpoint that `path` means: itself; of a run's folder best.pt, or last.pt where that is missing."""
    if not path.is_dir() or (path / WEIGHTS).is_file():
        return path
    found = next((path / name for name in ("best.pt", "last.pt") if (path / name).is_file()), None)
    if found is None:
        raise InputError(f"{path} is a folder without best.pt, last.pt or {WEIGHTS}: there is no network in it.")
    return found


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` or `save_pretrained` wrote, on the CPU.

    Raises InputError where the file or folder is missing, or is no checkpoint of this program.
    """
    path = checkpoint_in(path)
    if path.is_dir():
        about = read_json(path / CONFIG)
        content = {**about, "model": load_safetensors(path / WEIGHTS)} if isinstance(about, dict) else None
    else:
        content = load_tensors(path)
    expected = {"config": dict, "class_names": list, "model": dict}
    if not isinstance(content, dict) or any(not isinstance(content.get(k), t) for k, t in expected.items()):
        raise InputError(f"{path} is not a checkpoint of dgcnn_ws: it lacks {', '.join(expected)}.")
    if not can_name_classes(content["class_names"]):
        raise InputError(f"{path} is damaged: its class names are not distinct printable words.")
    return content


def restore_model(path: Path, content: dict[str, Any] | None = None) -> tuple[nn.Module, Recipe, list[str]]:
    """Return the network of a checkpoint with its weights, the recipe that trained it, and its class names.

    Args:
        content: what `load_checkpoint` returned, where that has been called.

    Raises InputError as `load_checkpoint` does, and where weights and settings disagree.
    """
    content = load_checkpoint(path) if content is None else content
    recipe = from_config(content["config"], path)
    num_classes, parts = len(content["class_names"]), content.get("part_names", [])
    if not isinstance(parts, list) or bool(parts) != (recipe.task == "segment"):
        raise InputError(f"{path} is damaged: its part names do not go with the task {recipe.task}.")
    check_model(path, recipe, num_classes, content["model"], len(parts))
    model = build_model(recipe, num_classes, len(parts))
    load_weights(path, model, content["model"])
    return model, recipe, content["class_names"]


def restore_frame(path: Path, content: dict[str, Any] | None = None) -> Frame:
    """Return how shapes became the clouds that trained a checkpoint.

    Where it does not say, as of version 0.1 those of data from elsewhere and imported ones do not: the published way
    for ModelNet40, the usual one for others.

    Args and errors as for `restore_model`.
    """
    content = load_checkpoint(path) if content is None else content
    if content.get("frame") is not None:
        return frame_of(content["frame"], path)
    is_modelnet40 = content["config"].get("dataset") == "modelnet40"
    return PUBLISHED_MODELNET40 if is_modelnet40 or content["class_names"] == list(MODELNET40.class_names) else Frame()


def restore_temperature(path: Path, content: dict[str, Any] | None = None) -> float:
    """Return what divides the logits of a checkpoint's network; 1, which changes none, where it does not say.

    Args and errors as for `restore_model`; InputError, too, where it is no number that training fits.
    """
    value = (load_checkpoint(path) if content is None else content).get("temperature", 1.0)
    if type(value) not in (int, float) or not COLDEST <= value <= HOTTEST:
        raise InputError(f"{path} is damaged: its temperature is no number from {COLDEST} to {HOTTEST}.")
    return float(value)


def check_model(path: Path, recipe: Recipe, num_classes: int, weights: dict[str, Any], num_parts: int = 0) -> None:
    """Raise InputError where `weights` are not those of the recipe's network; takes no memory for it."""
    # Settings that do not match the weights could ask for any amount of it.
    try:
        with torch.device("meta"):
            expected = build_model(recipe, num_classes, num_parts).state_dict()
    except (RuntimeError, TypeError) as error:  # sizes beyond what a tensor can have
        raise InputError(f"{path} is damaged: its settings describe no network.") from error
    check_weights(path, expected, weights)


def load_weights(path: Path, model: nn.Module, weights: dict[str, Any]) -> None:
    """Load `weights`, whose names and shapes have been checked. Raises InputError where they are of other settings."""
    try:
        # Older files have settings beside the weights only.
        model.load_state_dict({name: value for name, value in model.state_dict().items() if name == KEY} | weights)
    except RuntimeError as error:
        raise InputError(f"{path} is damaged: its weights are of other settings than it says. {error}") from error


def check_weights(path: Path, expected: dict[str, Tensor], found: dict[str, Any]) -> None:
    """Raise InputError where `found` is not a state dict of the names and shapes of `expected`."""
    if not is_plain(found.get(KEY, torch.zeros(()))):
        raise InputError(f"{path} is damaged: the settings beside its weights are no tensor.")
    expected, found = ({name: value for name, value in names.items() if name != KEY} for names in (expected, found))
    for name in sorted(expected.keys() | found.keys(), key=str):
        if name not in found or name not in expected:
            where = "lacks" if name not in found else "has an unexpected"
            raise InputError(f"{path} is of another architecture: it {where} {name!r}.")
        shape = tuple(expected[name].shape)
        if not is_plain(found[name]) or tuple(found[name].shape) != shape:
            raise InputError(f"{path} is of another architecture: {name!r} should have shape {shape}.")


def is_plain(value: Any) -> bool:
    """Whether `value` is a tensor that takes the memory its shape says: neither sparse, expanded nor on `meta`."""
    return (
        type(value) is Tensor
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and not value.is_complex()
        and value.is_contiguous()
    )
