"""Tables of text as users have them."""

import numpy as np
import pytest

from dgcnn_ws.datasets.formats.tables import read_text

POINTS = np.arange(12).reshape(4, 3)


@pytest.mark.parametrize(
    "text",
    [
        "0 1 2\n3 4 5\n6 7 8\n9 10 11\n",
        "4\n0 1 2 200 9 9 9\n3 4 5 200 9 9 9\n6 7 8 1 1 1 1\n9 10 11 1 1 1 1\n",  # .pts
        "x,y,z\n0,1,2\n3,4,5\n6,7,8\n9,10,11",
        "# made by hand\n0;1;2 # first\n\n3;4;5\r\n6;7;8\r\n//\n9;1e1;11\n",
        "\ufeff0 1 2\n3 4 5\n6 7 8\n9 10 11 # größer\n",
        "  0.0\t1.0\t2.0\n3 4 5\n6 7 8\n9 10 11\n",
    ],
)
def test_tables_of_many_kinds(text: str) -> None:
    assert np.array_equal(read_text(text.encode()), POINTS)


@pytest.mark.parametrize("text", ["", "1 2\n3 4\n", "1 2 3\n4 5\n", "1 2 3\nfour five six\n", "\x00\x01"])
def test_text_that_is_no_table(text: str) -> None:
    with pytest.raises(ValueError):
        read_text(text.encode())


def test_one_point_is_a_table_too() -> None:
    assert np.array_equal(read_text(b"1 2 3\n"), [[1, 2, 3]])
