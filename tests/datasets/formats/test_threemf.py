"""3MF as slicers write it, each shape against the triangles that it was made of."""

import io
import zipfile
from pathlib import PurePosixPath

import numpy as np
import pytest

from dgcnn_ws.datasets.shape_file import read_shape
from dgcnn_ws.errors import InputError

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
PRODUCTION = "http://schemas.microsoft.com/3dmanufacturing/production/2015/06"
CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]], float)
FACES = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
MESH = "<mesh><vertices>{}</vertices><triangles>{}</triangles></mesh>".format(
    "".join('<vertex x="{}" y="{}" z="{}"/>'.format(*corner) for corner in CORNERS),
    "".join('<triangle v1="{}" v2="{}" v3="{}"/>'.format(*face) for face in FACES),
)


def model(objects: str, build: str, start: str = "") -> str:
    head = f'<?xml version="1.0"?>{start}<model unit="millimeter" xmlns="{CORE}" xmlns:p="{PRODUCTION}"'
    return f"{head} requiredextensions='p'><resources>{objects}</resources><build>{build}</build></model>"


def packed(files: dict[str, str]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()


def read(data: bytes) -> np.ndarray:
    return read_shape(data, PurePosixPath("part.3mf"))


ONE = f'<object id="1" type="model">{MESH}</object>'


def test_an_object_in_two_places() -> None:
    places = '<item objectid="1"/><item objectid="1" transform="0 1 0 -1 0 0 0 0 2 10 20 30"/>'
    found = read(packed({"3D/3dmodel.model": model(ONE, places)}))
    turned = CORNERS @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 2]]) + (10, 20, 30)  # rows, as 3MF multiplies
    np.testing.assert_allclose(found, np.concatenate([CORNERS[FACES], turned[FACES]]))


def test_components_of_other_files_in_their_places() -> None:
    both = '<object id="7"><components><component p:path="/3D/Objects/a.model" objectid="1" transform="{}"/>'
    both = both.format("1 0 0 0 1 0 0 0 1 5 0 0") + '<component objectid="8"/></components></object>'
    both += '<object id="8"><components><component p:path="/3D/Objects/a.model" objectid="1"/></components></object>'
    build = '<item objectid="7" transform="2 0 0 0 2 0 0 0 2 0 0 1"/>'
    relations = (
        '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r" '
        'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel" Target="/3D/whole.model"/></Relationships>'
    )
    files = {"3D/whole.model": model(both, build), "3D/Objects/a.model": model(ONE, ""), "_rels/.rels": relations}
    found = read(packed(files))
    moved = CORNERS + np.array([5, 0, 0])
    expected = np.concatenate([moved[FACES], CORNERS[FACES]]) * 2 + (0, 0, 1)
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.tolist()))


@pytest.mark.parametrize(
    "text, reason",
    [
        (model(ONE, ""), "it builds nothing that has triangles"),
        (model(ONE, '<item objectid="2"/>'), "places an object '2' that there is not"),
        (model(ONE.replace('v1="0"', 'v1="9"'), '<item objectid="1"/>'), "a face names a vertex that there is not"),
        (model(ONE, '<item objectid="1"/>', '<!DOCTYPE a [<!ENTITY b "c">]>'), "declares entities"),
        (model(ONE, "").replace("requiredextensions='p'", "requiredextensions='b' xmlns:b='u/beams'"),
         "it requires the extension u/beams, which is not read"),
        (model('<object id="1"><components><component objectid="1"/></components></object>', '<item objectid="1"/>'),
         "within each other too deeply"),
        ("<model", "is not XML"),
    ],
)  # fmt: skip
def test_what_is_not_certain_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read(packed({"3D/3dmodel.model": text}))


def test_an_archive_without_a_model() -> None:
    with pytest.raises(InputError, match=r"it has no 3D/3dmodel\.model"):
        read(packed({"a": ""}))
    with pytest.raises(InputError, match="it is no zip archive"):
        read(b"PK\x03\x04")
