"""Files of a run: whole or not at all, and harmless to read."""

import errno
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dgcnn_ws.engine.folder.checkpoint import (
    load_checkpoint,
    load_tensors,
    read_json,
    restore_model,
    save_checkpoint,
    write_json,
)
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import replacing

RECIPE = complete(Recipe(emb_dims=32, k=4))


@pytest.fixture
def content() -> dict[str, object]:
    model = build_model(RECIPE, 3)
    return {"config": as_config(RECIPE), "class_names": ["a", "b", "c"], "model": model.state_dict()}


def test_round_trip(tmp_path: Path, content: dict[str, object]) -> None:
    save_checkpoint(tmp_path / "a.pt", content)
    model, recipe, class_names = restore_model(tmp_path / "a.pt")
    assert recipe == RECIPE
    assert class_names == ["a", "b", "c"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, content["model"][name])  # type: ignore[index]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    with pytest.raises(OSError, match="No space"), replacing(path) as temporary:
        temporary.write_text("half of")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_checkpoint_executes_nothing(tmp_path: Path, content: dict[str, object]) -> None:
    target = tmp_path / "owned"
    torch.save(content | {"extra": Malicious(target)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Malicious(target)))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(InputError, match="is not a checkpoint"):
            load_checkpoint(tmp_path / name)
    assert not target.exists()


@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04 junk", b"\x80\x04.", b"hello", bytes(range(256)) * 9])
def test_what_is_no_checkpoint(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(junk)
    with pytest.raises(InputError, match=r"a\.pt is not a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_truncated_checkpoint(tmp_path: Path, content: dict[str, object]) -> None:
    save_checkpoint(tmp_path / "a.pt", content)
    whole = (tmp_path / "a.pt").read_bytes()
    for share in (0.1, 0.5, 0.99):
        (tmp_path / "b.pt").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match="is not a checkpoint"):
            load_checkpoint(tmp_path / "b.pt")


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"best\.pt does not exist"):
        load_checkpoint(tmp_path / "best.pt")


@pytest.mark.parametrize("other", [{}, [1], {"model": {}}, {"model": {}, "config": {}, "class_names": "abc"}])
def test_a_torch_file_of_something_else(tmp_path: Path, other: object) -> None:
    torch.save(other, tmp_path / "a.pt")
    with pytest.raises(InputError, match="not a checkpoint of dgcnn_ws"):
        load_checkpoint(tmp_path / "a.pt")


def test_weights_of_another_architecture(tmp_path: Path, content: dict[str, object]) -> None:
    weights = content["model"]
    assert isinstance(weights, dict)
    other = build_model(complete(Recipe(norm="ws_bcn", emb_dims=32, k=4)), 3).state_dict()
    wrong_shape = weights | {"head.layers.0.weight": torch.zeros(2, 2)}
    # Absurd settings must not ask for the memory that they describe.
    huge = as_config(RECIPE) | {"emb_dims": 10**9}
    for change in ({"model": other}, {"model": wrong_shape}, {"class_names": ["a"]}, {"config": huge}):
        save_checkpoint(tmp_path / "a.pt", content | change)
        with pytest.raises(InputError, match="of another architecture"):
            restore_model(tmp_path / "a.pt")


def test_damaged_and_missing_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(InputError, match="damaged"):
        read_json(tmp_path / "config.json")
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path: Path, content: dict[str, object]) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with zipfile.ZipFile(buffer) as plain, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for member in plain.infolist():
            zeros = bytes(1 << 24) if member.filename.endswith("data/0") else plain.read(member)
            bomb.writestr(member.filename, zeros)
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "make",
    [
        lambda weight: torch.zeros(1).expand(weight.shape),
        lambda weight: torch.empty(weight.shape, device="meta"),
        lambda weight: torch.zeros(weight.shape).to_sparse(),
        lambda weight: weight.to(torch.complex64),
    ],
    ids=["expanded", "meta", "sparse", "complex"],
)
def test_weights_that_take_less_memory_than_they_say(
    tmp_path: Path, content: dict[str, object], make: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    weights = content["model"]
    assert isinstance(weights, dict)
    weights["global_feature.conv.weight"] = make(weights["global_feature.conv.weight"])
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"is not a checkpoint|of another architecture"):
        restore_model(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ["a", 2, "c"]}, "class names"),
        ({"class_names": ["a", "\x1b[2J", "c"]}, "class names"),
        ({"class_names": []}, "class names"),
        ({"class_names": ["a", "b", "a"]}, "class names"),
        ({"config": as_config(RECIPE) | {"emb_dims": 1 << 62}}, "describe no network|another architecture"),
        ({"config": as_config(RECIPE) | {"emb_dims": 1 << 40}}, "another architecture"),
        ({"config": as_config(RECIPE) | {"emb_dims": 10**100}}, "describe no network"),
        ({"config": as_config(RECIPE) | {"k": 10**600}}, "k"),
        ({"config": as_config(RECIPE) | {"lr": 10**600}}, "lr"),
        ({"config": as_config(RECIPE) | {"norm": 10**600}}, "norm"),
    ],
)
def test_damaged_settings(tmp_path: Path, content: dict[str, object], change: dict[str, object], message: str) -> None:
    torch.save(content | change, tmp_path / "a.pt")
    with pytest.raises(InputError, match=message):
        restore_model(tmp_path / "a.pt")


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "tensors.pt"
    save_checkpoint(path, {"weight": torch.zeros(1000)})
    content = path.read_bytes()
    at = content.index(bytes(4000)) + 2000  # in the middle of the tensor
    path.write_bytes(content[:at] + b"\1" + content[at + 1 :])
    with pytest.raises(InputError, match="is damaged"):
        load_tensors(path)
