"""The page to turn: what stands in it is what was shown, and no name of a file becomes part of the page."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from dgcnn_ws.pictures.page import STEPS, TEMPLATE, Shown, write_page

NAME = "</script><script>alert(1)</script>.off"


def test_a_page_holds_the_points_and_no_foreign_script(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(50, 3))
    wins = np.arange(50)
    write_page([Shown(NAME, "chair", [("chair", 0.75), ("lamp", 0.25)], points, wins)], "A title", tmp_path / "a.html")
    text, template = (path.read_text(encoding="utf-8") for path in (tmp_path / "a.html", TEMPLATE))
    assert text.count("<script") == template.count("<script") and text.count("</script") == template.count("</script")
    before, after = template.split("/*DATA*/")
    content = json.loads(text.removeprefix(before).removesuffix(after))
    (shape,) = content["shapes"]
    assert content["title"] == "A title" and (shape["name"], shape["label"]) == (NAME, "chair")
    read = np.frombuffer(base64.b64decode(shape["points"]), "<i2").reshape(50, 3) / STEPS
    middle = points - (points.min(0) + points.max(0)) / 2
    assert np.abs(read - middle / np.linalg.norm(middle, axis=1).max()).max() <= 1 / STEPS
