"""Tables as a terminal and as Markdown show them."""

from dgcnn_ws.text_table import aligned, markdown


def test_columns_are_aligned_and_a_note_may_be_of_any_width() -> None:
    rows = [["norm", "clouds", "ms"], ["ws_gn", "2", "13.5"], ["bn", "not run: needs about 900 GB"]]
    assert aligned(rows, "<>>") == [
        "norm   clouds    ms",
        "ws_gn       2  13.5",
        "bn     not run: needs about 900 GB",
    ]
    assert aligned([], "<>") == []


def test_markdown() -> None:
    assert markdown([["norm", "OA"], ["bn", "92.9"]]) == ["| norm | OA |", "|---|---|", "| bn | 92.9 |"]
