"""Where a run computes, and what it says about the machine."""

import os
import platform
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dgcnn_ws.engine.machine.allocator import libc
from dgcnn_ws.errors import InputError
from dgcnn_ws.proc import proc_bytes


def pick_device(name: str) -> torch.device:
    """Return the device called `name` (`auto`: CUDA where there is one). Raises InputError where it is missing."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or not (index.isdecimal() or name == kind):
        raise InputError(f"--device {name!r} is unknown. Choose auto, cpu, cuda or cuda:N.")
    device = torch.device(name)
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name} was asked for, but torch sees {torch.cuda.device_count()} CUDA devices.")
    return device


def gpus_to_share(name: str) -> list[str]:
    """Return the GPUs that runs on the device called `name` may each take one of, as CUDA_VISIBLE_DEVICES has them.

    None where `name` means one device.
    """
    if name not in ("auto", "cuda"):
        return []
    count = torch.cuda.device_count()
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (told.split(",") if told else [str(index) for index in range(count)])[:count]


def use_deterministic_algorithms() -> None:
    """Let torch take, in this process, only algorithms whose bits repeat; where it has none it raises RuntimeError."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA's first product starts
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def memory_bytes(device: torch.device) -> int:
    """Return the memory held now: on the device for CUDA, by the process on the CPU (its peak so far off Linux)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    resident = proc_bytes("self/status", "VmRSS")
    return peak_memory_bytes(device) if resident is None else resident


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_bytes` begin anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    if (trim := libc("malloc_trim")) is not None:
        trim(0)  # what is kept for later tensors is not held by any
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory held since `reset_peak_memory`: on the device for CUDA, by the process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = proc_bytes("self/status", "VmHWM")
    if peak is not None:
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def hardware_name(device: torch.device) -> str:
    """Return the model of the GPU or of the processor, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return the versions and the hardware behind a run, JSON-ready."""
    try:
        command = ["git", "describe", "--always", "--dirty"]
        git = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
        revision = git.stdout.strip() or None
    except OSError:  # no git on this machine
        revision = None
    return {
        "hardware": hardware_name(device),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "git": revision,
    }
