"""Tables of text, a point a line, from bytes that nobody vouches for.

Which columns are x, y and z is read where the table says it, and is the first three where it says nothing. What
could be meant in two ways is refused.
"""

import io
import re
from collections.abc import Sequence

import numpy as np

from dgcnn_ws.datasets.formats.arrays import check_rows
from dgcnn_ws.datasets.formats.encoding import plain_text
from dgcnn_ws.datasets.formats.features import NAMES, of_columns, with_features

PREFIX = r"(?:points?|pos|positions?|coords?|coordinates?|vertex|vertices|p)"
SUFFIX = r"(?:[ _-]?(?:coords?|coordinates?|pos|positions?))?(?:[ _/]*[\[(]?(?:m|mm|cm|in|ft)[\])]?)?"
AXIS = re.compile(rf"(?:{PREFIX}?[ _.:-]*([xyz]){SUFFIX}|{PREFIX}[ _.:-]*([012]))", re.IGNORECASE)
NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?)", re.IGNORECASE)
PTS = ["x", "y", "z", "intensity", "red", "green", "blue"]  # the columns of Leica's .pts, which names none
DECIMAL_COMMA = re.compile(r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?")


def read_text(data: bytes, features: Sequence[str] = ()) -> np.ndarray:
    """The points (N, 3 + D) of a table of numbers between blanks, tabs, commas or semicolons.

    Names in the first line, or in a comment (after # or //) above it, say which columns are x, y and z, and which the
    features; nameless, these are all further columns. A first line of one number counts the rows, as in .pts. Decimal
    commas are read where no other commas are.

    Raises:
        ValueError: it is no table, or it is not certain which columns the coordinates are.
    """
    text = plain_text(data).decode("utf-8", "replace")
    comments = re.findall(r"(?m)^[ \t]*(?:#|//)+[ \t]*(.*?)[ \t]*$", text[: 1 << 16])
    lines = [line for line in re.sub(r"(?:#|//).*", "", text).split("\n") if line.strip(" \t,;")]
    if lines and re.match(r"[ \t]*ncols\b", lines[0], re.IGNORECASE):
        raise ValueError("it is a grid of heights, not a table of points")
    counted = re.fullmatch(r"[ \t]*(\d+)[ \t]*", lines[0]) if lines else None
    if counted:
        lines = lines[1:]
        if len(lines) != int(counted[1]):
            raise ValueError(f"its first line counts {counted[1]} rows, but {len(lines)} follow")
    if not lines:
        raise ValueError("it has no row of three numbers")
    separator, decimal = find_separator(lines[-1])
    if separator == "\t" and not all("\t" in line for line in lines):
        separator = None
    if decimal == ",":
        lines = [line.replace(",", ".") for line in lines]
    names = None if counted else find_names(lines, separator)
    if names is not None:
        lines = lines[1:]
    width = check_widths(lines, separator)
    columns: tuple[int, ...] | None
    if names is not None:
        columns = name_columns(names, width)
        names = ["", *names] if len(names) < width else names
    else:
        named = (fields(line, separator) for line in comments)
        names = next((line for line in named if len(line) == width and axes_of(line)), None)
        columns = axes_of(names) if names else None
    table = load(lines, separator, columns or (0, 1, 2))
    if columns is None:
        check_rows(table, width)
    if not features:
        return table
    if names is None and counted and width == len(PTS):
        names = PTS
    if names is None:
        return of_columns(load(lines, separator, tuple(range(width))), features)
    known = [name.lower() for name in names]
    wanted = {name: known.index(name) for kind in features for kinds in NAMES[kind] for name in kinds if name in known}
    values = load(lines, separator, tuple(wanted.values())) if wanted else np.empty((len(table), 0))
    return with_features(table, dict(zip(wanted, values.T, strict=True)), features)


def fields(line: str, separator: str | None) -> list[str]:
    """The fields of one line, without blanks and quotation marks around them; None separates at blanks and tabs."""
    found = line.split(separator)
    if len(found) == 1:  # names may stand otherwise than what they name
        found = re.split(r"[,;\t]", line) if re.search(r"[,;\t]", line) else line.split()
    return [field.strip().strip("\"'").strip() for field in found]


def find_separator(row: str) -> tuple[str | None, str]:
    """What separates the fields of a row (None: blanks), and its decimal point."""
    if ";" in row or "\t" in row.strip():
        separator: str | None = ";" if ";" in row else "\t"
    elif "," in row:
        words = row.split()
        if len(words) >= 3 and "." not in row and all(DECIMAL_COMMA.fullmatch(word) for word in words):
            return None, ","
        return ",", "."
    else:
        return None, "."
    inner = [field.strip() for field in row.split(separator)]
    if any("," in field for field in inner):
        if "." in row:
            raise ValueError("its numbers have both points and commas, so it is not certain what either means")
        return separator, ","
    return separator, "."


def find_names(lines: list[str], separator: str | None) -> list[str] | None:
    """The names of columns in the first line; None where it is a row like any other."""
    first = fields(lines[0], separator)
    numbers = [field for field in first if NUMBER.fullmatch(field)]
    counting = [str(i) for i in range(len(numbers))]
    # A data frame writes the numbers of its columns where they have no names.
    is_counted = numbers == counting and (first[0] == "" or (len(lines) > 1 and "." in lines[1]))
    return first if len(numbers) < 3 or (is_counted and len(numbers) >= len(first) - 1) else None


def check_widths(lines: list[str], separator: str | None) -> int:
    """How many fields each row has; ValueError where they differ."""
    if not lines:
        raise ValueError("it has no row of three numbers")
    widths = [len(line.split()) if separator is None else line.count(separator) + 1 for line in lines]
    odd = next((i for i, width in enumerate(widths) if width != widths[0]), None)
    if odd is not None:
        raise ValueError(f"row {odd + 1} has {widths[odd]} columns where row 1 has {widths[0]}")
    if widths[0] < 3:
        raise ValueError(f"it has {widths[0]} columns, where points need three")
    return widths[0]


def axes_of(names: list[str]) -> tuple[int, ...] | None:
    """The columns of x, y and z, where each is named once."""
    found = [match and (match[1] or "xyz"[int(match[2])]).lower() for match in map(AXIS.fullmatch, names)]
    return tuple(found.index(axis) for axis in "xyz") if all(found.count(axis) == 1 for axis in "xyz") else None


def name_columns(names: list[str], width: int) -> tuple[int, ...]:
    """The columns of x, y and z among rows of `width` fields; ValueError where the names do not say."""
    if len(names) == width - 1:
        names = ["", *names]  # R names no column of row names
    if len(names) != width:
        raise ValueError(f"its first line names {len(names)} columns, but its rows have {width}")
    columns = axes_of(names)
    if columns is None and all(str(i) in names for i in range(3)):
        columns = tuple(names.index(str(i)) for i in range(3))
    if columns is None:
        called = ", ".join(repr(name) for name in names[:6])
        raise ValueError(f"its columns are called {called}, and not x, y and z each once; name them so")
    return columns


def load(lines: list[str], separator: str | None, columns: tuple[int, ...]) -> np.ndarray:
    """The numbers (N, 3) in three columns; NaN where a field is empty."""
    if separator is not None:
        empty = rf"(?:(?<={separator})|^)[ \t]*(?={separator}|$)" if separator != "\t" else r"(?:(?<=\t)|^) *(?=\t|$)"
        if any(re.search(empty, line) for line in lines[:1000]) or separator * 2 in "\n".join(lines):
            lines = [re.sub(empty, "nan", line) for line in lines]
        elif separator == "," and re.search(r"(?:^|,)-?0\d", "\n".join(lines)) and not re.search(r"[.eE]", lines[0]):
            raise ValueError("commas seem to stand both between and within its numbers; write decimal points")
    try:
        return np.loadtxt(
            io.StringIO("\n".join(lines)), ndmin=2, usecols=columns, delimiter=separator, comments=None, quotechar='"'
        )
    except ValueError as error:
        word = re.match(r"could not convert string '(.*)' to float64 at row (\d+)", str(error), re.DOTALL)
        if word is None:
            raise
        raise ValueError(f"row {int(word[2]) + 1} has {word[1]!r} where a coordinate should be") from error
