"""Put a published data set in place: mirror after mirror, resumed where it broke off, checked before it is used.

Everything unfinished lies in one hidden folder beside the data set's, and the finished copy is renamed out of it.
So an interruption at any moment leaves the data set as it was, and what has arrived for the next attempt.
"""

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pooch
import requests
from filelock import FileLock, Timeout
from tqdm import tqdm

from dgcnn_ws.datasets.fetching.archive import take
from dgcnn_ws.datasets.fetching.published import Published
from dgcnn_ws.errors import InputError

TIMEOUT = (10.0, 30.0)  # seconds to connect, and without a single byte
ATTEMPTS = 3  # in a row that bring less than PROGRESS
PROGRESS = 1 << 20  # bytes
PAUSE = 1.0  # seconds before the second attempt, twice that before the third
MAX_BYTES = 1 << 30  # a server may send without end; ModelNet40's zip takes 0.44 GB
CHUNK = 1 << 16  # bytes on their way to the disk; what a broken connection loses at most


def place_of(published: Published, root: Path) -> Path:
    """The data set's folder at or under `root`; behind a link, the folder that it leads to."""
    root = root.expanduser()
    return (root if root.name == published.folder else root / published.folder).resolve()


def install(
    published: Published, target: Path, damaged: dict[str, str], urls: Sequence[str] = (), source: Path | None = None
) -> str:
    """Put a good copy of `published` at `target`; return in one sentence where it came from.

    In a folder that is there already only damaged files are replaced, and only when all of them are at hand.

    Args:
        target: the data set's folder (`place_of`).
        damaged: what is wrong there (`Published.damage`).
        urls: more mirrors, tried before the published ones.
        source: a zip or folder to take the files from instead of a mirror.

    Raises:
        InputError: no mirror, or not `source`, gave a good copy; `target` is as it was.
    """
    with workspace(target) as store:
        unpacked = store / "unpacked"
        if damaged.keys() <= published.lists.keys():
            origin = "here already, their lists written anew"
            unpacked.mkdir()
            published.write_lists(unpacked)
        elif source is None:
            origin = "from " + unpack_from_mirrors(published, [*urls, *published.mirrors], store, unpacked)
        else:
            origin = f"from {source}"
            unpacked.mkdir()
            take(source, published, unpacked)
        put_in_place(unpacked, target, damaged)
        for transfer in transfers(store):
            transfer.unlink()
    return f"{target}: {len(published.files)} files as published, {origin}."


@contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """The hidden folder beside `target`, for one process at a time; only transfers outlive it, for the next attempt."""
    store = target.parent / f".{target.name}.download"
    store.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(store / "lock", timeout=0):
            shutil.rmtree(store / "unpacked", ignore_errors=True)  # of a process that was killed
            try:
                yield store
            finally:
                shutil.rmtree(store / "unpacked", ignore_errors=True)
                if not transfers(store):
                    shutil.rmtree(store)
    except Timeout as error:
        raise InputError(f"Another process is fetching {target}; wait for it, then run this again.") from error


def transfers(store: Path) -> list[Path]:
    """What has arrived from mirrors: whole zips, parts of them, and what identifies the parts' versions."""
    return [path for path in store.iterdir() if path.suffix in (".zip", ".part", ".version")]


def put_in_place(unpacked: Path, target: Path, damaged: dict[str, str]) -> None:
    """Move a whole copy to `target` in one step, or into a damaged copy one whole file at a time."""
    if not target.exists():
        unpacked.rename(target)
        return
    for name in damaged:
        os.replace(unpacked / name, target / name)


def unpack_from_mirrors(published: Published, urls: Sequence[str], store: Path, folder: Path) -> str:
    """Fill `folder` from the first mirror with a good copy; return its address, and what was wrong before it."""
    failures = []
    for url in urls:
        host = host_of(url)
        try:
            archive = fetch(url, store)
        except (requests.RequestException, ValueError) as error:  # ValueError: a redirection to no address
            failures.append(f"{host} {reason(error)}")
            continue
        folder.mkdir()
        try:
            take(archive, published, folder)
        except InputError as error:
            failures.append(f"{host}: {error}".replace(str(archive), "its zip").rstrip("."))
            archive.unlink()
            shutil.rmtree(folder)
            continue
        return url + (f" (before it: {'; '.join(failures)})" if failures else "")
    kept = sum(path.stat().st_size for path in transfers(store))
    raise InputError(
        f"{published.name} could not be fetched: {'; '.join(failures)}."
        + (f" The same command goes on from the {kept / 1e6:.1f} MB that did arrive." if kept else "")
        + f"\nIf you have its zip or folder: dgcnn-ws download {published.name} --from FILE_OR_FOLDER"
        " (or name another mirror with --url)"
        "\nTo work without it: dgcnn-ws train --dataset shapes"
    )


def fetch(url: str, store: Path) -> Path:
    """The file at `url`, brought into `store` by pooch; a call goes on where an earlier one broke off."""
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.zip"
    pooch.get_logger().setLevel("WARNING")
    keeper = pooch.create(store, base_url="", registry={name: None}, urls={name: url})
    return Path(keeper.fetch(name, downloader=persist))


def persist(url: str, output_file: str, keeper: pooch.Pooch) -> None:
    """A downloader for pooch that tries again and resumes; the part that has arrived survives errors and signals."""
    name = next(name for name, address in keeper.urls.items() if address == url)
    partial = (Path(keeper.path) / name).with_suffix(".part")
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            receive(url, partial)
            break
        except requests.RequestException as error:
            gained = (partial.stat().st_size if partial.exists() else 0) - before
            failures = 1 if gained >= PROGRESS else failures + 1
            if failures == ATTEMPTS or is_final(error):
                raise
            time.sleep(failures * PAUSE)
    os.replace(partial, output_file)
    partial.with_suffix(".version").unlink(missing_ok=True)


def receive(url: str, partial: Path) -> None:
    """Append to `partial` what it lacks of the file at `url`; begin anew where the server has no ranges.

    Raises:
        requests.RequestException: the transfer failed; a later call continues it.
        InputError: there is more than `MAX_BYTES`.
    """
    version = partial.with_suffix(".version")
    start = partial.stat().st_size if partial.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if version.exists():  # else a file that has changed meanwhile would be glued to the old one's beginning
            headers["If-Range"] = version.read_text()
    bar = tqdm(desc=host_of(url), unit="B", unit_scale=True, leave=False, disable=None, dynamic_ncols=True)
    with bar, requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        continues = response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
        if start and (response.status_code == 416 or (response.status_code == 206 and not continues)):
            forget(partial)
            receive(url, partial)
            return
        response.raise_for_status()
        if response.status_code != 206:
            start = 0
        identity = response.headers.get("ETag", "")
        if identity.startswith('"') and identity.isascii():
            version.write_text(identity)
        else:
            version.unlink(missing_ok=True)
        rest = response.raw.length_remaining
        bar.total = None if rest is None else start + rest
        bar.initial = bar.n = start
        fits = bar.total is None or bar.total <= MAX_BYTES
        with open(partial, "ab" if start else "wb") as file:
            for chunk in response.iter_content(CHUNK) if fits else ():
                fits = file.tell() + len(chunk) <= MAX_BYTES
                if not fits:
                    break
                file.write(chunk)
                bar.update(len(chunk))
    if not fits:
        forget(partial)
        raise InputError(f"sends more than {MAX_BYTES} bytes, which no published file has")


def forget(partial: Path) -> None:
    for path in (partial, partial.with_suffix(".version")):
        path.unlink(missing_ok=True)


def host_of(url: str) -> str:
    """The host and port in an address, without the password that may stand before them."""
    return urlsplit(url).netloc.rpartition("@")[2]


def is_final(error: requests.RequestException) -> bool:
    """Whether the server has decided (404, 403...), so that asking again is of no use."""
    status = None if error.response is None else error.response.status_code
    return status is not None and 400 <= status < 500 and status not in (408, 429)


def reason(error: Exception) -> str:
    """What went wrong with a transfer, in the words that follow a host's name."""
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"answered {error.response.status_code}"
    if isinstance(error, requests.Timeout) or "timed out" in str(error):
        return "did not answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "has no certificate to trust"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "broke off"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    return str(error) if isinstance(error, InputError) else f"answered nonsense ({type(error).__name__})"
