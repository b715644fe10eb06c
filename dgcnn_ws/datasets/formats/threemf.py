"""3MF, what slicers and CAD programs print from (https://github.com/3MFConsortium/spec_core): XML in a zip."""

import io
import zipfile
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers.expat import ExpatError, ParserCreate

import numpy as np

from dgcnn_ws.datasets.formats.polygons import MAX_TRIANGLES, Shape, make_shape

MAX_PART_BYTES = 1 << 29
MAX_PLACES, MAX_DEPTH = 1 << 14, 32  # of objects in objects
ROOT = "3D/3dmodel.model"
# Extensions that a file may require without another shape for it: parts in other files, colours, slices, names.
HARMLESS = ("/production/", "/material/", "/slice/", "/trianglesets/")

Place = tuple[str, str, np.ndarray]  # a model file in the archive, an object's number in it, and (4, 3) where it stands


@dataclass
class Object:
    """Vertices and corners of triangles, as they come, and the objects that it is made of."""

    vertices: "array[float]" = field(default_factory=lambda: array("d"))
    corners: "array[int]" = field(default_factory=lambda: array("q"))
    components: list[Place] = field(default_factory=list)


class Model:
    """One model file: its objects, and what it says to build.

    Args:
        text: the XML.
        path: its name in the archive.
    """

    def __init__(self, text: bytes, path: str) -> None:
        self.path = path
        self.objects: dict[str, Object] = {}
        self.build: list[Place] = []
        self._namespaces: dict[str, str] = {}
        self._object = Object()
        parser = ParserCreate(namespace_separator=" ")
        parser.StartElementHandler = self._start
        parser.StartNamespaceDeclHandler = lambda prefix, uri: self._namespaces.update({prefix or "": uri or ""})
        parser.StartDoctypeDeclHandler = _refuse_doctype
        try:
            parser.Parse(text, True)
        except ExpatError as error:
            raise ValueError(f"its {path} is not XML: {error}") from error

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        match name.rpartition(" ")[2]:
            case "model":
                for prefix in attributes.get("requiredextensions", "").split():
                    extension = self._namespaces.get(prefix, prefix)
                    if not any(known in extension for known in HARMLESS):
                        raise ValueError(f"it requires the extension {extension}, which is not read")
            case "object":
                self._object = self.objects[attributes["id"]] = Object()
            case "vertex":
                self._object.vertices.extend(float(attributes[axis]) for axis in "xyz")
            case "triangle":
                self._object.corners.extend(int(attributes[corner]) for corner in ("v1", "v2", "v3"))
            case "component":
                self._object.components.append(self._place(attributes))
            case "item":
                self.build.append(self._place(attributes))

    def _place(self, attributes: dict[str, str]) -> Place:
        path = next((value for name, value in attributes.items() if name.endswith(" path")), self.path)
        numbers = [float(number) for number in attributes.get("transform", "1 0 0 0 1 0 0 0 1 0 0 0").split()]
        return path.lstrip("/"), attributes["objectid"], np.reshape(numbers, (4, 3))


def _refuse_doctype(*_: object) -> None:
    raise ValueError("its XML declares entities, which 3MF forbids")


def read_3mf(data: bytes) -> Shape:
    """The triangles (T, 3, 3) of what a 3MF builds, every object in each of its places, in the file's unit."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise ValueError("it is no zip archive, as a 3MF is") from error
    models: dict[str, Model] = {}

    def model(path: str) -> Model:
        if path not in models:
            models[path] = Model(part(archive, path), path)
        return models[path]

    root = model(find_root(archive))
    parts: list[Shape] = []
    triangles = 0
    for placed, matrix in walk(root, model):
        if placed.corners:
            vertices = np.reshape(np.array(placed.vertices), (-1, 3)) @ matrix[:3] + matrix[3]
            parts.append(make_shape(vertices, np.reshape(np.array(placed.corners), (-1, 3))))
            triangles += len(parts[-1])
            if triangles > MAX_TRIANGLES:
                raise ValueError(f"it has more than {MAX_TRIANGLES} triangles")
    if not parts:
        raise ValueError("it builds nothing that has triangles")
    return np.concatenate(parts)


def walk(root: Model, model: Callable[[str], Model]) -> Iterator[tuple[Object, np.ndarray]]:
    """Every object in each of its places (4, 3); `model` opens a file of the archive."""
    left = [(place, 0) for place in reversed(root.build)]
    count = 0
    while left:
        (path, number, matrix), depth = left.pop()
        count += 1
        if count > MAX_PLACES or depth > MAX_DEPTH:
            raise ValueError("its objects stand in too many places, or within each other too deeply")
        objects = model(path).objects
        if number not in objects:
            raise ValueError(f"it places an object {number!r} that there is not")
        yield objects[number], matrix
        for inner, other, within in objects[number].components:
            moved = within @ matrix[:3]
            moved[3] += matrix[3]
            left.append(((inner, other, moved), depth + 1))


def find_root(archive: zipfile.ZipFile) -> str:
    """The name of the model that the archive's relations call its root; the usual one where they say nothing."""
    targets: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name.rpartition(" ")[2] == "Relationship" and attributes.get("Type", "").endswith("/3dmodel"):
            targets.append(attributes.get("Target", ""))

    if "_rels/.rels" in archive.namelist():
        parser = ParserCreate(namespace_separator=" ")
        parser.StartElementHandler, parser.StartDoctypeDeclHandler = start, _refuse_doctype
        try:
            parser.Parse(part(archive, "_rels/.rels"), True)
        except ExpatError as error:
            raise ValueError(f"its relations are not XML: {error}") from error
    return (targets or [ROOT])[0].lstrip("/")


def part(archive: zipfile.ZipFile, name: str) -> bytes:
    """One file of the archive, within `MAX_PART_BYTES`."""
    if name not in archive.namelist():
        raise ValueError(f"it has no {name}")
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its {name} is not packed by deflate")
    with archive.open(member) as file:
        data = file.read(MAX_PART_BYTES + 1)
    if len(data) > MAX_PART_BYTES:
        raise ValueError(f"its {name} is larger than {MAX_PART_BYTES >> 20} MiB")
    return data
