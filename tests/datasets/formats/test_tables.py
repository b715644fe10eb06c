"""Tables of text as users have them: read right where they say what is what, refused where they do not."""

import numpy as np
import pytest

from dgcnn_ws.datasets.formats.tables import read_text

POINTS = np.arange(12).reshape(4, 3)
SCAN = np.random.default_rng(0).uniform(-1, 1, (60, 3)).round(6) * (1, 10, 100)


@pytest.mark.parametrize(
    "text",
    [
        "0 1 2\n3 4 5\n6 7 8\n9 10 11\n",
        "4\n0 1 2 200 9 9 9\n3 4 5 200 9 9 9\n6 7 8 1 1 1 1\n9 10 11 1 1 1 1\n",  # .pts
        "x,y,z\n0,1,2\n3,4,5\n6,7,8\n9,10,11",
        "# made by hand\n0;1;2 # first\n\n3;4;5\r\n6;7;8\r\n//\n9;1e1;11\n",
        "\ufeff0 1 2\n3 4 5\n6 7 8\n9 10 11 # größer\n",
        "  0.0\t1.0\t2.0\n3\t4\t5\n6\t7\t8\n9\t10\t11\n",
        "  0.0\t1.0\t2.0\n3 4 5\n6 7 8\n9\t10\t11\n",
        "0, 1, 2\n3, 4, 5\n6, 7, 8\n9, 10, 11\n",
        "0,1,2,\n3,4,5,\n6,7,8,\n9,10,11,\n",  # a comma too many at every end
        "0 1 2 near\n3 4 5 near\n6 7 8 far\n9 10 11 far\n",  # words after the coordinates
    ],
)
def test_tables_of_many_kinds(text: str) -> None:
    assert np.array_equal(read_text(text.encode()), POINTS)
    assert np.array_equal(read_text(text.removeprefix("\ufeff").encode("utf-16")), POINTS)


@pytest.mark.parametrize("separator", [";", " ", "\t", "; "])
def test_decimal_commas(separator: str) -> None:
    text = "\n".join(separator.join(f"{value:.6f}".replace(".", ",") for value in row) for row in SCAN)
    assert np.allclose(read_text(text.encode()), SCAN)


def rows(front: str = "", separator: str = ",", behind: str = "") -> str:
    return "\n".join(front.format(i) + separator.join(map(str, row)) + behind for i, row in enumerate(SCAN.tolist()))


@pytest.mark.parametrize(
    "text",
    [
        "id,x,y,z\n" + rows("{},"),
        ",x,y,z\n" + rows("{},"),  # a data frame with its index
        ",0,1,2\n" + rows("{},"),  # the same of a bare array
        "0,1,2\n" + rows(),  # without the index: column numbers are no point
        '"t","Points:0","Points:1","Points:2"\n' + rows("7,"),  # ParaView
        "intensity x y z\n" + rows("99 ", " "),
        "//X Y Z Intensity\n" + rows("", " ", " 5"),  # CloudCompare
        "# intensity x y z\n" + rows("99 ", " "),  # numpy.savetxt
        '"x" "y" "z"\n' + rows('"{}" ', " "),  # R
        "label;X [m];Y [m];Z [m]\n" + rows("tree;", ";"),
        "t\tpos_x\tpos_y\tpos_z\n" + rows("1\t", "\t"),
        "# frame 7 of 9\n" + rows("", " "),  # a comment that names nothing
    ],
)
def test_named_columns_are_found(text: str) -> None:
    assert np.array_equal(read_text(text.encode()), SCAN)
    assert np.array_equal(read_text(text.replace("\n", "\r\n").encode()), SCAN)


def test_columns_in_another_order() -> None:
    assert np.array_equal(read_text(("z,y,x\n" + rows()).encode()), SCAN[:, ::-1])


def test_empty_fields_are_missing_numbers() -> None:
    table = read_text(b"x,y,z\n1,2,3\n,5,6\n7,,9\n10,11,\n")
    assert np.array_equal(np.isnan(table), [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    assert np.array_equal(table[0], [1, 2, 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no row"),
        ("x y z\n", "no row"),
        ("1 2\n3 4\n", "2 columns"),
        ("1 2 3\n4 5\n", "row 2 has 2 columns where row 1 has 3"),
        ("1 2 3\nfour five six\n", "row 2 has 'four' where a coordinate should be"),
        ("\x00\x01", "no row"),
        ("a,b,c\n" + rows(), "called 'a', 'b', 'c', and not x, y and z"),
        ("x,y,z,x\n" + rows("7,"), "not x, y and z each once"),
        ("x,y,z\n" + rows("7,", ",", ",8,9"), "names 3 columns, but its rows have 6"),
        (rows("{} ", " "), "first column counts the rows"),
        (rows("C ", " "), "row 1 has 'C'"),
        ("3\n\nC 0 0 0\nH 1 0 0\nH 0 1 0\n", "row 1 has 'C'"),  # a molecule
        ("5\n0 0 0\n1 1 1\n", "counts 5 rows, but 2 follow"),
        (rows().replace(".", ","), "commas seem to stand both between and within"),
        ("1.234,5;2;3\n1.234,5;2;3\n", "both points and commas"),
        ("\n".join(" ".join(map(str, row)) for row in SCAN.T.tolist()), r"save it as \(60, 3\)"),
        ("ncols 4\nnrows 2\nxllcorner 0\n1 2 3 4\n5 6 7 8\n", "grid of heights"),
    ],
)
def test_what_is_not_certain_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_text(text.encode())


def test_one_point_is_a_table_too() -> None:
    assert np.array_equal(read_text(b"1 2 3\n"), [[1, 2, 3]])
