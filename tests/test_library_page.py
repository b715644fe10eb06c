"""docs/LIBRARY.md does what it says: its examples run, one after the other, in an empty folder."""

import re
from pathlib import Path

import pytest

from dgcnn_ws.datasets.built_in import shapes
from dgcnn_ws.engine.folder.checkpoint import save_checkpoint
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete

PAGE = Path(__file__).parents[1] / "docs/LIBRARY.md"


def make_what_a_reader_has(folder: Path) -> None:
    """Write a run's checkpoint and a mesh."""
    recipe = complete(Recipe(num_points=128, k=8, emb_dims=32))
    content = {"config": as_config(recipe), "class_names": ["chair", "lamp", "table"], "part_names": []}
    (folder / "runs/mine").mkdir(parents=True)
    save_checkpoint(folder / "runs/mine/best.pt", content | {"model": build_model(recipe, 3).state_dict()})
    (folder / "chair.off").write_text("OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 1 2 3\n3 0 3 2\n")


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pytest.importorskip("huggingface_hub")
    make_what_a_reader_has(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shapes, "PER_CLASS", {"train": 8, "test": 1})
    text = PAGE.read_text()
    examples = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert len(examples) >= 5
    names: dict[str, object] = {"__name__": "page"}
    for example in examples:
        line = text.count("\n", 0, example.start(1))
        exec(compile("\n" * line + example[1], str(PAGE), "exec"), names)  # a traceback shows the page's line
