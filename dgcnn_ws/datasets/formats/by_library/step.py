"""CAD parts, STEP and IGES, whose curved surfaces Open CASCADE cuts into triangles (cascadio)."""

from functools import partial

from dgcnn_ws.datasets.formats.by_library.apart import read_apart
from dgcnn_ws.datasets.formats.gltf import read_gltf
from dgcnn_ws.datasets.formats.polygons import Shape
from dgcnn_ws.extras import need

CODE = """
import cascadio, numpy as np
with open(source, "rb") as file:
    data = file.read()
# Triangles are off by no more than a hundredth of an edge's length, and turn by no more than a quarter of a radian.
settings = {"tol_linear": 0.01, "tol_relative": True, "tol_angular": 0.25, "use_parallel": False}
np.save(target, np.frombuffer(cascadio.load(data, file_type=KIND, **settings), np.uint8))
"""


def read_cad(data: bytes, kind: str) -> Shape:
    """The triangles (T, 3, 3), in metres, of every part in its place.

    Open CASCADE does not survive every damaged file: each has a process of its own.

    Args:
        kind: `step` or `iges`.
    """
    need("cascadio", "formats", f".{kind}")
    if kind == "step" and b"END-ISO-10303-21" not in data[-1024:]:
        raise ValueError("it has no END-ISO-10303-21 at its end: it is no STEP file, or cut short")
    found = read_apart(CODE.replace("KIND", repr(kind)), data, f".{kind}").tobytes()
    if not found:
        raise ValueError(f"Open CASCADE finds nothing in it that it can read as {kind.upper()}")
    shape = read_gltf(found)
    if shape.ndim != 3:
        raise ValueError("it has no surfaces")
    return shape


read_step = partial(read_cad, kind="step")
read_iges = partial(read_cad, kind="iges")
