"""A page of clouds to turn in a browser, the points that decided on them coloured; one file, no network."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dgcnn_ws.files import replacing

TEMPLATE = Path(__file__).with_name("page.html")
STEPS = (1 << 15) - 1  # that a coordinate is rounded to


@dataclass(frozen=True)
class Shown:
    """A shape and what was said of it.

    Args:
        name: of its file.
        label: what it is, where that is known.
        classes: the likeliest classes with their probabilities, the likeliest first.
        points: (N, 3), y up.
        wins: (N,), how many channels of the pooled maximum each point decides.
    """

    name: str
    label: str | None
    classes: list[tuple[str, float]]
    points: np.ndarray
    wins: np.ndarray

    @property
    def title(self) -> str:
        """Name and answer, in two lines."""
        best, share = self.classes[0]
        return f"{self.name}\n{best} {share:.0%}"


def write_page(shown: list[Shown], title: str, path: Path) -> None:
    """Write the page to `path` in one step."""
    from matplotlib import colormaps  # predict keeps what is shown, and starts without it

    colours = (colormaps["plasma_r"](np.linspace(0.15, 1, 16))[:, :3] * 255).round().astype(int).tolist()
    content = {"title": title, "colours": colours, "shapes": [packed(shape) for shape in shown]}
    # A name must not end the script that it stands in.
    text = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    with replacing(path) as temporary:
        temporary.write_text(TEMPLATE.read_text(encoding="utf-8").replace("/*DATA*/", text), encoding="utf-8")


def packed(shape: Shown) -> dict[str, Any]:
    """Return a shape as JSON: points as int16 around their middle, the farthest coordinate at the end of the range."""
    points = shape.points.astype(np.float64)
    points = points - (points.min(0) + points.max(0)) / 2
    points = points / (np.linalg.norm(points, axis=1).max() or 1)
    return {
        "name": shape.name,
        "label": shape.label,
        "classes": [[name, round(share, 4)] for name, share in shape.classes],
        "points": base64.b64encode((points * STEPS).round().astype("<i2").tobytes()).decode(),
        "wins": base64.b64encode(shape.wins.clip(0, 65535).astype("<u2").tobytes()).decode(),
    }
