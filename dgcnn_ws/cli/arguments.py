"""What several commands make of their arguments: lists with commas between, and files to write."""

from pathlib import Path

from dgcnn_ws.errors import InputError

SKIPPED_SOME = 3  # exit code of a command that could not read some of many files


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


def check_folder_of(*files: Path | None) -> None:
    """Raise InputError where a file cannot be written for want of its folder: before the work, not after it."""
    for file in files:
        if file and not file.parent.is_dir():
            raise InputError(f"{file.parent} is not a folder, so {file.name} cannot be written there. Make it first.")
