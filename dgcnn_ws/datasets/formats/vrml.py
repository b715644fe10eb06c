"""VRML 2 (ISO/IEC 14772), as electronics CAD and scanners write it: indexed faces, in their places."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from dgcnn_ws.datasets.formats.encoding import plain_text
from dgcnn_ws.datasets.formats.polygons import MAX_TRIANGLES, Shape, make_shape

TOKEN = re.compile(rb'#[^\n]*|"(?:[^"\\]|\\.)*"|[\[\]{}]|[^\s,\[\]{}"#]+', re.DOTALL)
NUMBER = re.compile(rb"[+-]?(?:\d|\.\d|0x)")
MAX_DEPTH, MAX_PLACES = 64, 1 << 14
GROUPS = {"Transform": "children", "Group": "children", "Anchor": "children", "Collision": "children"}
GROUPS |= {"Billboard": "children", "Switch": "choice", "LOD": "level"}
NOT_SURFACES = ("IndexedLineSet", "PointSet", "Text")


@dataclass
class Node:
    """A node's type, and the values of its fields: nodes, and the words that stand there."""

    kind: str
    fields: dict[str, list["Node | bytes"]] = field(default_factory=dict)

    def nodes(self, name: str) -> list["Node"]:
        return [value for value in self.fields.get(name, ()) if isinstance(value, Node)]

    def numbers(self, name: str, default: tuple[float, ...] = ()) -> np.ndarray:
        """The numbers (n,) of a field."""
        words = [value for value in self.fields.get(name, ()) if isinstance(value, bytes)]
        return np.array(words or default, np.float64)


class Parser:
    """The nodes of a file, from its words."""

    def __init__(self, text: bytes) -> None:
        self.words = [word for word in TOKEN.findall(text) if not word.startswith(b"#")]
        self.words.append(b"")  # the end
        self.at = 0
        self.named: dict[bytes, Node] = {}

    def next(self) -> bytes:
        word = self.words[self.at]
        if not word:
            raise ValueError("it ends within a node")
        self.at += 1
        return word

    def scene(self) -> Iterator[Node]:
        while self.words[self.at]:
            if (node := self.node(0)) is not None:
                yield node

    def node(self, depth: int) -> Node | None:
        """The next node; None of a route, or of an empty one."""
        word = self.next()
        if depth > MAX_DEPTH:
            raise ValueError(f"its nodes stand more than {MAX_DEPTH} deep in each other")
        if word in (b"PROTO", b"EXTERNPROTO"):
            raise ValueError("it defines nodes of its own (PROTO), which are not read; export it as plain VRML 2")
        if word == b"ROUTE":
            self.at = min(self.at + 3, len(self.words) - 1)
            return None
        if word == b"NULL":
            return None
        if word == b"USE":
            name = self.next()
            if name not in self.named:
                raise ValueError(f"it uses {name.decode('ascii', 'replace')!r}, which it does not define before")
            return self.named[name]
        name = self.next() if word == b"DEF" else b""
        kind = self.next() if name else word
        if self.next() != b"{":
            raise ValueError(f"after {kind[:40].decode('ascii', 'replace')!r} there is no node")
        node = Node(kind.decode("ascii", "replace"))
        while (field_name := self.next()) != b"}":
            if field_name == b"ROUTE":
                self.at = min(self.at + 3, len(self.words) - 1)
                continue
            node.fields[field_name.decode("ascii", "replace")] = list(self.values(depth))
        if name:
            self.named[name] = node
        return node

    def values(self, depth: int) -> Iterator[Node | bytes]:
        """What stands in a field: all between brackets, else a node, or words up to the next field."""
        if self.words[self.at] == b"[":
            self.at += 1
            while self.words[self.at] != b"]":
                yield from self.value(depth)
            self.at += 1
        elif self.is_plain(self.words[self.at]):
            while self.is_plain(self.words[self.at]):
                yield self.next()
        else:
            yield from self.value(depth)

    def value(self, depth: int) -> Iterator[Node | bytes]:
        if self.is_plain(self.words[self.at]):
            yield self.next()
        elif (node := self.node(depth + 1)) is not None:
            yield node

    @staticmethod
    def is_plain(word: bytes) -> bool:
        return word in (b"TRUE", b"FALSE") or word[:1] == b'"' or NUMBER.match(word) is not None


def read_vrml(data: bytes) -> Shape:
    """The triangles (T, 3, 3) of a VRML 2 file's faces, each in its place; where it has none, the points (N, 3)."""
    text = plain_text(data)
    head = text[:64].split(b"\n")[0]
    if not head.startswith(b"#VRML V2.0"):
        told = "it is VRML 1 or X3D" if head.startswith((b"#VRML", b"#X3D")) else "it does not begin with #VRML V2.0"
        raise ValueError(f"{told}; export it as VRML 2 (VRML97), or as .obj or .ply")
    faces: list[Shape] = []
    points: list[Shape] = []
    triangles = 0
    for geometry, matrix in walk(list(Parser(text).scene())):
        (coordinates,) = geometry.nodes("coord") or [Node("Coordinate")]
        vertices = np.reshape(coordinates.numbers("point"), (-1, 3)) @ matrix[:3, :3].T + matrix[:3, 3]
        if geometry.kind == "PointSet":
            points.append(vertices)
        elif geometry.kind == "IndexedFaceSet":
            index = geometry.numbers("coordIndex")
            counts = np.diff(np.flatnonzero(np.append(index, -1) == -1), prepend=-1) - 1  # corners before each -1
            if counts.any():
                faces.append(make_shape(vertices, index[index != -1], counts[counts > 0]))
                triangles += len(faces[-1])
        if triangles > MAX_TRIANGLES:
            raise ValueError(f"it has more than {MAX_TRIANGLES} triangles")
    if not faces and not points:
        raise ValueError("it has no IndexedFaceSet with faces")
    return np.concatenate(faces or points)


def walk(scene: list[Node]) -> Iterator[tuple[Node, np.ndarray]]:
    """Every geometry in each of its places (4, 4)."""
    left = [(node, np.eye(4)) for node in reversed(scene)]
    count = 0
    while left:
        node, matrix = left.pop()
        count += 1
        if count > MAX_PLACES:
            raise ValueError(f"it places more than {MAX_PLACES} nodes")
        if node.kind == "Inline":
            raise ValueError("it names another file (Inline), which is not read; save it as one file")
        if node.kind == "Shape":
            for geometry in node.nodes("geometry"):
                if geometry.kind not in ("IndexedFaceSet", *NOT_SURFACES):
                    raise ValueError(f"it has a {geometry.kind[:40]}, which is not read; export it as .obj or .stl")
                yield geometry, matrix
        elif node.kind in GROUPS:
            inner = node.nodes(GROUPS[node.kind])
            if node.kind == "Switch":
                which = int(node.numbers("whichChoice", (-1,))[0])
                inner = inner[which : which + 1] if which >= 0 else []
            elif node.kind == "LOD":
                inner = inner[:1]  # the finest
            placed = matrix @ placement(node) if node.kind == "Transform" else matrix
            left += [(child, placed) for child in reversed(inner)]


def placement(node: Node) -> np.ndarray:
    """A Transform's matrix (4, 4): T C R SR S SR⁻¹ C⁻¹."""

    def moved(name: str, sign: float = 1.0) -> np.ndarray:
        matrix = np.eye(4)
        matrix[:3, 3] = sign * node.numbers(name, (0, 0, 0))
        return matrix

    scale = np.diag([*node.numbers("scale", (1, 1, 1)), 1.0])
    turn, tilt = turned(node.numbers("rotation", (0, 0, 1, 0))), turned(node.numbers("scaleOrientation", (0, 0, 1, 0)))
    whole: np.ndarray = moved("translation") @ moved("center") @ turn @ tilt @ scale @ tilt.T @ moved("center", -1)
    return whole


def turned(rotation: np.ndarray) -> np.ndarray:
    """The matrix (4, 4) of a turn: an axis (3,) and an angle in radians (Rodrigues)."""
    axis, angle = rotation[:3], rotation[3]
    length = np.linalg.norm(axis)
    matrix = np.eye(4)
    if length > 0:
        x, y, z = axis / length
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        matrix[:3, :3] += np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix
