"""Text as programs on any system write it, as plain bytes; and the numbers in it."""

import codecs
import warnings

import numpy as np

BYTE_ORDER_MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32", codecs.BOM_UTF16_LE: "utf-16"}
BYTE_ORDER_MARKS |= {codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf-8-sig"}


def plain_text(data: bytes) -> bytes:
    """The same text in UTF-8 without a byte-order mark, its lines ended by newlines alone."""
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            data = data.decode(encoding, "replace").encode()
            break
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def numbers(text: bytes) -> np.ndarray:
    """The numbers (n,) float64 between blanks and newlines. Raises ValueError where something is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy's word for text that is not numbers
        try:
            return np.fromstring(text, sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise ValueError("there are words where numbers should be") from error
