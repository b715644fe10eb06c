"""docs/LIBRARY.md does what it says: its examples run, one after the other, in an empty folder."""

import re
from pathlib import Path

import pytest

from dgcnn_ws.datasets.built_in import shapes

PAGE = Path(__file__).parents[1] / "docs/LIBRARY.md"


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shapes, "PER_CLASS", {"train": 8, "test": 1})
    text = PAGE.read_text()
    examples = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert len(examples) >= 5
    names: dict[str, object] = {"__name__": "page"}
    for example in examples:
        line = text.count("\n", 0, example.start(1))
        exec(compile("\n" * line + example[1], str(PAGE), "exec"), names)  # a traceback shows the page's line
