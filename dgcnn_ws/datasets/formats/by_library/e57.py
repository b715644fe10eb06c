"""E57 scans (ASTM E2807), by the library e57, in Rust."""

import numpy as np

from dgcnn_ws.datasets.formats.by_library.apart import read_apart
from dgcnn_ws.extras import need

CODE = """
import e57, numpy as np
np.save(target, np.asarray(e57.read_points(source).points, np.float64))
"""


def read_e57(data: bytes) -> np.ndarray:
    """The valid points (N, 3) of all scans of a file, each where its pose puts it, in metres."""
    need("e57", "formats", ".e57")
    return read_apart(CODE, data, ".e57").reshape(-1, 3)
