"""Libraries of single formats, which come with the extra `[formats]`."""

import importlib
from typing import Any


def need(module: str, package: str, what: str) -> Any:
    """A library, or an error that says which one is missing and how it is had."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"{what} needs {package}: pip install 'dgcnn_ws[formats]', or pip install {package}"
        ) from error
