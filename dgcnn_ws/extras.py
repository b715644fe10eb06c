"""Libraries that only some need: they come with the package's extras, and are imported when they are used."""

import importlib
from typing import Any

from dgcnn_ws.errors import InputError


def need(module: str, extra: str, what: str, package: str | None = None) -> Any:
    """Return a library. Raises InputError, which says who needs it and how it is had, where it cannot be imported.

    Args:
        extra: the extra that brings it.
        what: what cannot be done without it, as the sentence's first words.
        package: the name that pip knows it by, where that is not the module's.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module.partition(".")[0]
        raise InputError(
            f"{what} needs {package}: pip install 'dgcnn_ws[{extra}]', or pip install {package}."
        ) from error
