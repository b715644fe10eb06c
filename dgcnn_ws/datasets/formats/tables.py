"""Tables of text, a point a line, from bytes that nobody vouches for."""

import io
import re

import numpy as np

from dgcnn_ws.datasets.formats.arrays import three_columns


def read_text(data: bytes) -> np.ndarray:
    """Rows of numbers between spaces, commas or semicolons: the first three columns.

    Comments begin with # or //. A first line that is no row of a table (a count, as in .pts, or column names)
    is left out.
    """
    text = re.sub(rb"[,;]", b" ", re.sub(rb"(?m)(?:#|//).*$", b"", data)).decode("utf-8-sig").strip()
    first, _, rest = text.partition("\n")
    if not _is_row(first):
        text = rest
    if not text.strip():
        raise ValueError("no row of three numbers")
    return three_columns(np.loadtxt(io.StringIO(text), ndmin=2, usecols=(0, 1, 2)))


def _is_row(line: str) -> bool:
    try:
        return len([float(word) for word in line.split()]) >= 3
    except ValueError:
        return False
