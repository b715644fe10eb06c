"""`download modelnet40`: fetch a published data set, or check the copy that is there.

Mirrors are tried in turn, a transfer that broke off is continued, and nothing is put in place before each file
has its published MD5. A copy that is complete is left alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.errors import InputError


@dataclass(frozen=True)
class Arguments:
    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    """What to fetch: modelnet40."""
    data_root: Path = Path("data")
    """Folder to put modelnet40_ply_hdf5_2048/ into."""
    source: Annotated[Path | None, tyro.conf.arg(name="from", metavar="PATH", help_behavior_hint="")] = None
    """Zip file or folder that holds the data set already: its files are copied, no mirror is asked."""
    url: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Address of a zip file on another mirror, tried before the known ones. Can be given several times."""


def check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"--url {url!r} is no http:// or https:// address; for a file or folder use --from.")


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "download", arguments, __doc__)
    if args.source and args.url:
        raise InputError("--from and --url exclude each other: the first takes what is here, the second fetches.")
    for url in args.url:
        check_url(url)
    from dgcnn_ws.datasets.fetching.download import install, place_of
    from dgcnn_ws.datasets.fetching.published import MODELNET40

    published = {MODELNET40.name: MODELNET40}.get(args.dataset)
    if published is None:
        raise InputError(f"{args.dataset!r} cannot be downloaded. Choose one of {MODELNET40.name}.")
    target = place_of(published, args.data_root)
    damaged = published.damage(target)
    if not damaged:
        print(f"{target}: all is well, {len(published.files)} files as published. Nothing to do.")
        return
    if target.exists():
        print(f"{target}: {'; '.join(f'{name} {what}' for name, what in damaged.items())}.")
    print(install(published, target, damaged, args.url, args.source))
