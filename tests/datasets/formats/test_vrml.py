"""VRML 2 as electronics CAD writes it: faces in their places, each against what it was made of."""

from pathlib import PurePosixPath

import numpy as np
import pytest

from dgcnn_ws.datasets.shape_file import read_shape
from dgcnn_ws.errors import InputError

HEAD = "#VRML V2.0 utf8\n"
SQUARE = "IndexedFaceSet { coord Coordinate { point [0 0 0, 1 0 0, 1 1 0, 0 1 0] } coordIndex [0,1,2,3,-1] }"
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)


def read(text: str) -> np.ndarray:
    return read_shape(text.encode(), PurePosixPath("part.wrl"))


def test_faces_in_their_places() -> None:
    text = (
        HEAD
        + f"""# a comment, with {{ a bracket
    DEF PIN Shape {{ appearance Appearance {{ material DEF M Material {{ diffuseColor 0.1 .2 0.3 transparency 0 }} }}
      geometry {SQUARE} }}
    Transform {{ translation 10 0 0 rotation 0 0 1 1.5707963267948966 scale 2 1 1 children [ USE PIN ] }}
    Transform {{ children Group {{ children [ Transform {{ center 1 0 0 scale 3 3 3 children USE PIN }} ] }} }}
    Viewpoint {{ description "from {{ above" position 0 0 10 }}
    """
    )
    found = read(text)
    turned = CORNERS * (2, 1, 1) @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + (10, 0, 0)
    grown = (CORNERS - (1, 0, 0)) * 3 + (1, 0, 0)
    assert found.shape == (6, 3, 3)
    for i, corners in enumerate((CORNERS, turned, grown)):
        mine = np.unique(found[2 * i : 2 * i + 2].reshape(-1, 3).round(9), axis=0)
        np.testing.assert_allclose(mine, np.unique(corners.round(9), axis=0), atol=1e-9)


def test_a_tilted_scale_is_taken_along_its_own_axes() -> None:
    eighth = np.pi / 4
    found = read(
        f"{HEAD}Transform {{ scale 2 1 1 scaleOrientation 0 0 1 {eighth} children Shape {{ geometry {SQUARE} }} }}"
    )
    far = found.reshape(-1, 3)[np.linalg.norm(found.reshape(-1, 3), axis=1).argmax()]
    np.testing.assert_allclose(far, [2, 2, 0], atol=1e-9)  # along the diagonal, which is the scale's axis


def test_triangles_without_an_end_and_a_choice() -> None:
    points = "coord Coordinate { point [0 0 0 1 0 0 0 1 0] }"
    text = (
        f"Switch {{ whichChoice 0 choice [ Shape {{ geometry IndexedFaceSet {{ {points} coordIndex [0 1 2] }} }} ] }}"
    )
    assert read(HEAD + text).shape == (1, 3, 3)
    assert read(f"{HEAD}Shape {{ geometry PointSet {{ {points} }} }}").shape == (3, 3)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("#VRML V1.0 ascii\nSeparator {}", r"it is VRML 1 or X3D; export it as VRML 2"),
        ("solid a\n", r"does not begin with #VRML V2\.0"),
        (HEAD + "Shape { geometry Sphere { radius 2 } }", "it has a Sphere, which is not read; export it as"),
        (HEAD + "PROTO Wheel [ ] { Group { } }", "defines nodes of its own"),
        (HEAD + 'Inline { url "other.wrl" }', "names another file"),
        (HEAD + "Transform { children [ USE NOTHING ] }", "it uses 'NOTHING', which it does not define"),
        (HEAD + "Group { }", "it has no IndexedFaceSet with faces"),
        (HEAD + "Shape { geometry IndexedFaceSet { coordIndex [0 1", "it ends within a node"),
        (HEAD + "Group { children [ " * 70, "deep in each other"),
    ],
)
def test_what_is_not_certain_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(text)
