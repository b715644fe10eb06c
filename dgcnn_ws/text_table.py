"""Tables as text: columns aligned for a terminal, or Markdown."""

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]


def aligned(rows: Rows, alignment: str) -> list[str]:
    """Return a line a row, columns two spaces apart.

    Args:
        rows: the first the headings, where there are any. One of fewer cells ends in a note, of any width.
        alignment: a sign a column: `<` left, `>` right.
    """
    count = len(alignment)
    cells = [row if len(row) == count else row[:-1] for row in rows]
    widths = [max((len(row[i]) for row in cells if i < len(row)), default=0) for i in range(count)]
    return [
        "  ".join(f"{cell:{sign}{width}}" for cell, sign, width in zip(row, alignment, widths, strict=False)).rstrip()
        for row in rows
    ]


def markdown(rows: Rows) -> list[str]:
    """Return the lines of a Markdown table, the first row its headings."""
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]
