"""Devices by name."""

import pytest
import torch

from dgcnn_ws.engine.machine.devices import (
    describe_environment,
    gpus_to_share,
    memory_bytes,
    peak_memory_bytes,
    pick_device,
    reset_peak_memory,
)
from dgcnn_ws.errors import InputError


def test_names() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:1:2", "meta", "", "cuda:99"])
def test_refuses(name: str) -> None:
    with pytest.raises(InputError, match="--device"):
        pick_device(name)


def test_peak_memory_grows_with_what_is_taken() -> None:
    cpu = torch.device("cpu")
    reset_peak_memory(cpu)  # what other tests took is no part of it where the system can forget
    before = peak_memory_bytes(cpu)
    taken = torch.ones(max(0, before - memory_bytes(cpu)) // 4 + 25_000_000)  # 100 MB more than the process has had
    assert peak_memory_bytes(cpu) > before + 50_000_000
    assert len(taken)


def test_the_environment_names_versions() -> None:
    assert describe_environment(torch.device("cpu"))["torch"] == torch.__version__


def test_gpus_are_shared_where_no_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus_to_share("auto") == gpus_to_share("cuda") == ["0", "1"]
    assert gpus_to_share("cuda:1") == gpus_to_share("cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7")
    assert gpus_to_share("auto") == ["3", "GPU-7"]
