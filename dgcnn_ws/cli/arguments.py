"""From a command's arguments to its dataclass, and what several commands make of them: lists, files to write.

Nothing here, and nothing that a command's file imports at its top, imports torch: `--help` and a mistyped flag are
answered at once. What a command works with it imports where it begins to work.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from dgcnn_ws.errors import InputError

T = TypeVar("T")
SKIPPED_SOME = 3  # exit code of a command that could not read some of many files
PICTURES = (".png", ".pdf", ".svg")  # endings of what matplotlib draws here


def program() -> str:
    """Return what the user typed to start the program, up to the command: `main.py`, `dgcnn-ws`, ..."""
    path = Path(sys.argv[0])
    name = path.name
    if path.parts[-2:] == ("dgcnn_ws", "__main__.py"):
        return "python -m dgcnn_ws"
    return name if name == "dgcnn-ws" else "main.py"


def command_line() -> list[str]:
    """Return the words that start the program again, the command not among them."""
    return ["python", "main.py"] if program() == "main.py" else program().split()


def parse(
    kind: type[T],
    command: str,
    arguments: list[str],
    description: str | None,
    default: T | None = None,
    hidden: Sequence[str] = (),
) -> T:
    """Return the arguments as a `kind`, a dataclass whose docstrings are the help; `--help` and mistakes exit.

    Args:
        default: values of the flags left out, where they are not the dataclass's own.
        hidden: fields that `--help` leaves out, for `command` refuses them.
    """
    if not {"-h", "--help"} & set(arguments):
        hidden = ()  # tyro would know nothing of them, and the command says why it refuses them
    registry = ConstructorRegistry()
    within = False

    @registry.struct_rule
    def as_written(info: StructTypeInfo) -> StructConstructorSpec | None:
        """tyro's own reading of a dataclass; `(default: None)` says nothing, for the help names what is taken then."""
        nonlocal within
        if within:
            return None
        within = True
        try:
            spec = ConstructorRegistry.get_struct_spec(info)
        finally:
            within = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        return replace(spec, fields=tuple(_plain(field, hidden) for field in spec.fields))

    given: dict[str, Any] = {} if default is None else {"default": default}
    script = Path(sys.argv[0]).name == f"{command}.py"
    prog = f"scripts/{command}.py" if script else f"{program()} {command}"
    return tyro.cli(kind, prog=prog, args=arguments, description=description, registry=registry, **given)


def _plain(field: StructFieldSpec, hidden: Sequence[str]) -> StructFieldSpec:
    kind: Any = field.type
    bare = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    others = [option for option in get_args(bare) if option is not NoneType]
    if field.default is None and len(others) < len(get_args(bare)):
        kind = Annotated[kind, tyro.conf.arg(metavar="|".join(map(_metavar, others)), help_behavior_hint="")]
    if field.name == "start":  # `from` is no name that Python lets a field have
        kind = Annotated[kind, tyro.conf.arg(name="from", metavar="CHECKPOINT", help_behavior_hint="")]
    if field.name in hidden:
        kind = Annotated[kind, tyro.conf.Suppress]
    return replace(field, type=kind)


def _metavar(kind: Any) -> str:
    return f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else kind.__name__.upper()


def words(flag: str, text: str) -> list[str]:
    """Return the words between the commas, each once. Raises InputError where there is none."""
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not parts:
        raise InputError(f"{flag} {text!r} is an empty list. Name at least one, with commas between.")
    return parts


def numbers(flag: str, text: str) -> list[int]:
    """Return the whole numbers between the commas. Raises InputError where one is none, or is 0."""
    parts = words(flag, text)
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise InputError(f"{flag} {text!r} must be whole numbers from 1, with commas between.")
    return [int(part) for part in parts]


def check_picture(flag: str, file: Path | None) -> None:
    """Raise InputError where a picture's file has an ending that is not drawn here."""
    if file and file.suffix.lower() not in PICTURES:
        raise InputError(f"{flag} {file} cannot be drawn. End it in {', '.join(PICTURES)}.")


HEADINGS = 12  # copies that --rotate takes where --votes says nothing


def votes_of(votes: int | None, rotate: str) -> int:
    """Return how many predictions are averaged, of which --rotate has a default of its own."""
    return votes if votes is not None else 1 if rotate == "none" else HEADINGS
