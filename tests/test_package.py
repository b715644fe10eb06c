"""What is installed: imports with few packages, documented and typed public names."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What the extras bring, and h5py, as modules.
EXTRAS = (
    "filelock", "h5py", "huggingface_hub", "hypothesis", "matplotlib", "onnx", "onnxruntime",
    "onnxscript", "pooch", "requests", "safetensors", "tensorboard", "torch_geometric", "tqdm",
    "trimesh", "tyro",
)  # fmt: skip

PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))  # an import of any of them fails
import dgcnn_ws, dgcnn_ws.models, dgcnn_ws.nn.pyg, dgcnn_ws.ops, dgcnn_ws.inference.export, torch
assert dgcnn_ws.EdgeConv(3, 8, k=4)(torch.randn(2, 3, 16)).shape == (2, 8, 16)
del sys.modules["h5py"]
import dgcnn_ws.datasets
"""


def test_the_library_imports_without_the_extras() -> None:
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["dgcnn_ws", "dgcnn_ws.nn", "dgcnn_ws.nn.pyg", "dgcnn_ws.ops", "dgcnn_ws.models", "dgcnn_ws.datasets"]
)
def test_public_names_have_docstrings_and_types(module: str) -> None:
    package = importlib.import_module(module)
    names = getattr(package, "__all__", [name for name in ("EdgeConv", "DynamicEdgeConv") if hasattr(package, name)])
    for name in names:
        value = getattr(package, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__ and len(value.__doc__) > 40, name
            function = value.__init__ if inspect.isclass(value) else value
            if getattr(function, "__module__", "").startswith("dgcnn_ws"):  # not a class without one of its own
                arguments = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
                untyped = [p.name for p in arguments if p.annotation is p.empty and p.kind < p.VAR_POSITIONAL]
                assert untyped == [], name


def test_public_names_come_when_they_are_used() -> None:
    command = [sys.executable, "-c", "import dgcnn_ws, sys; assert 'torch' not in sys.modules; dgcnn_ws.EdgeConv"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0
    package = importlib.import_module("dgcnn_ws")
    assert set(package.__all__) <= set(dir(package))
    assert all(getattr(package, name).__name__ == name for name in package.__all__)
    assert not hasattr(package, "NoSuchName")


def test_type_hints_are_announced() -> None:
    assert (ROOT / "dgcnn_ws/py.typed").is_file()


# What docs/DESIGN.md's map names as folders, whose files explain themselves.
WHOLE_FOLDERS = ("dgcnn_ws/cli", "dgcnn_ws/datasets/formats", "dgcnn_ws/ops/loops", "dgcnn_ws/ops/tiles")


def test_the_map_names_every_module_and_none_that_is_missing() -> None:
    drawn = (ROOT / "docs/DESIGN.md").read_text().split("```")[1]
    named = set(re.findall(r"\w+\.(?:py|html)", drawn))
    paths = [path.relative_to(ROOT) for path in (ROOT / "dgcnn_ws").rglob("*.py")]
    assert named - {path.name for path in paths} <= {"main.py", "train.py", "evaluate.py", "compare.py", "page.html"}
    apart = {path.name for path in paths if not any(path.is_relative_to(folder) for folder in WHOLE_FOLDERS)}
    assert apart - named == {"__init__.py", "__main__.py"}
    folders = {part for path in paths for part in path.parts[:-1]} - {"by_library"}  # of formats
    assert {name for name in folders if f"{name}/" not in drawn} == set()
