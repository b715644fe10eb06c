"""A source of any layout, as a folder or as an archive."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Fill = Callable[..., Path]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Writes files of the given names, each with its name in it, into a folder or a zip."""

    def write(names: list[str], archive: bool = False) -> Path:
        if archive:
            with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
                for name in names:
                    file.writestr(name, name)
            return tmp_path / "a.zip"
        for name in names:
            (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / name).write_text(name)
        return tmp_path / "a"

    return write
