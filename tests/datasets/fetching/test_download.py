"""Downloads against a real local server that misbehaves in every way that mirrors do."""

import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dgcnn_ws.datasets.fetching import download
from dgcnn_ws.datasets.fetching.download import fetch, install, place_of
from dgcnn_ws.datasets.fetching.published import Published
from dgcnn_ws.errors import InputError

UNIT = 512  # bytes that are written at once; the miniature's zip has 19 times as many
Answer = Callable[[BaseHTTPRequestHandler], None]


class Mirror:
    """A server on a free port; `answers` decides by path, `asked` keeps each request's path and Range."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.stopped = threading.Event()
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append((self.path, self.headers["Range"]))
                mirror.answers[self.path](self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def serve(self, path: str, answer: Answer) -> str:
        """Answer requests for `path` so, and return its address."""
        self.answers[path] = answer
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.asked]


def headers(handler: BaseHTTPRequestHandler, status: int = 200, **fields: object) -> None:
    handler.send_response(status)
    for name, value in fields.items():
        handler.send_header(name.replace("_", "-"), str(value))
    handler.end_headers()


def whole(content: bytes, **fields: object) -> Answer:
    """The file, whatever range was asked for."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        headers(handler, Content_Length=len(content), **fields)
        handler.wfile.write(content)

    return answer


def breaking(content: bytes, *ends: int, etag: str = '"1"', ranges: bool = True) -> Answer:
    """The file by ranges; the first answers break off after so many bytes of it, the next ones are whole."""
    left = list(ends)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"] if ranges else None
        if handler.headers["If-Range"] not in (None, etag):
            asked = None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        end = left.pop(0) if left else len(content)
        fields: dict[str, object] = {"Content_Length": len(content) - start, "ETag": etag}
        if asked:
            headers(handler, 206, Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}", **fields)
        else:
            headers(handler, 200, **fields)
        handler.wfile.write(content[start:end])
        if end < len(content):
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)

    return answer


def status(*codes: int, then: Answer | None = None) -> Answer:
    left = list(codes)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if left or then is None:
            headers(handler, left.pop(0) if len(left) > 1 or then else left[0], Content_Length=0)
        else:
            then(handler)

    return answer


def stalling(mirror: Mirror, content: bytes, end: int) -> Answer:
    """The file's beginning, and then silence on an open connection."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        headers(handler, Content_Length=len(content))
        handler.wfile.write(content[:end])
        handler.wfile.flush()
        mirror.stopped.wait()

    return answer


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "TIMEOUT", (60, 60))
    monkeypatch.setattr(download, "PAUSE", 0)
    monkeypatch.setattr(download, "CHUNK", UNIT)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    mirror = Mirror()
    yield mirror
    mirror.stopped.set()
    mirror.server.shutdown()
    mirror.server.server_close()


@pytest.fixture
def content(copy: Path, tmp_path: Path) -> bytes:
    """The miniature's zip."""
    with zipfile.ZipFile(tmp_path / "good.zip", "w") as file:
        for source in sorted(copy.iterdir()):
            file.write(source, f"{copy.name}/{source.name}")
    return (tmp_path / "good.zip").read_bytes()


@pytest.fixture
def target(miniature: Published, tmp_path: Path) -> Path:
    return place_of(miniature, tmp_path / "data")


def run(miniature: Published, target: Path, *urls: str, **options: Any) -> str:
    """Install; afterwards the folder beside the target is gone, unless something failed."""
    said = install(miniature, target, miniature.damage(target), urls, **options)
    assert miniature.damage(target) == {}
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    return said


def fail(miniature: Published, target: Path, *urls: str, **options: Any) -> str:
    before = {path: path.read_bytes() for path in target.glob("*")}
    with pytest.raises(InputError) as error:
        install(miniature, target, miniature.damage(target), urls, **options)
    assert {path: path.read_bytes() for path in target.glob("*")} == before
    assert not list(target.parent.glob(".*/unpacked"))
    return str(error.value)


def test_from_the_first_mirror(mirror: Mirror, miniature: Published, content: bytes, target: Path) -> None:
    url = mirror.serve("/a.zip", whole(content))
    assert run(miniature, target, url) == f"{target}: 3 files as published, from {url}."
    assert mirror.asked == [("/a.zip", None)]


def test_mirrors_in_order_until_one_is_good(
    mirror: Mirror, miniature: Published, content: bytes, target: Path, copy: Path, tmp_path: Path
) -> None:
    (copy / "ply_data_test0.h5").write_bytes(b"other data")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        for source in copy.iterdir():
            file.write(source, source.name)
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as file:
        file.writestr("../../ply_data_test0.h5", b"evil")
    bad = {
        "/404.zip": status(404),
        "/page.zip": whole(b"<html>Log in to this network</html>"),
        "/half.zip": whole(content[: len(content) // 2]),
        "/other.zip": whole((tmp_path / "other.zip").read_bytes()),
        "/out.zip": whole((tmp_path / "out.zip").read_bytes()),
    }
    urls = [mirror.serve(path, answer) for path, answer in bad.items()]
    last = mirror.serve("/good.zip", whole(content))
    never = mirror.serve("/never.zip", whole(content))
    said = run(replace(miniature, mirrors=(last, never)), target, *urls)
    assert [path for path, _ in mirror.asked] == [*bad, "/good.zip"]
    assert f"from {last} (before it: 127.0.0.1:" in said
    for words in ("answered 404", "its zip is not a zip", "not the published file", "leads out of its folder"):
        assert words in said
    assert not list(tmp_path.rglob("evil")) and "\n" not in said


def test_a_broken_transfer_is_resumed(mirror: Mirror, miniature: Published, content: bytes, target: Path) -> None:
    first, second = 3 * UNIT, 5 * UNIT
    run(miniature, target, mirror.serve("/a.zip", breaking(content, first, second)))
    assert mirror.ranges() == [None, f"bytes={first}-", f"bytes={second}-"]


def test_it_begins_anew_where_the_server_has_no_ranges(
    mirror: Mirror, miniature: Published, content: bytes, target: Path
) -> None:
    third = 6 * UNIT
    run(miniature, target, mirror.serve("/a.zip", breaking(content, third, third, ranges=False)))
    assert mirror.ranges() == [None, f"bytes={third}-", f"bytes={third}-"]


def test_a_later_call_resumes_what_an_earlier_one_left(
    mirror: Mirror, miniature: Published, content: bytes, target: Path
) -> None:
    url = mirror.serve("/a.zip", breaking(content, *[4 * UNIT] * download.ATTEMPTS))
    said = fail(miniature, target, url)
    assert "127.0.0.1" in said and "broke off" in said and "goes on from the 0.0 MB" in said
    assert not target.exists()
    run(miniature, target, url)
    assert mirror.ranges() == [None, *[f"bytes={4 * UNIT}-"] * 3]


def test_attempts_are_counted_anew_after_progress(
    mirror: Mirror, miniature: Published, content: bytes, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PROGRESS", 1)
    ends = range(UNIT, 11 * UNIT, UNIT)
    run(miniature, target, mirror.serve("/a.zip", breaking(content, *ends)))
    assert len(mirror.asked) == 11


def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(
    mirror: Mirror, miniature: Published, content: bytes, target: Path
) -> None:
    url = mirror.serve("/a.zip", breaking(bytes(len(content)), *[2 * UNIT] * 3, etag='"old"'))
    fail(miniature, target, url)
    mirror.serve("/a.zip", breaking(content, etag='"new"'))
    run(miniature, target, url)
    assert mirror.ranges()[-1] == f"bytes={2 * UNIT}-"


@pytest.mark.parametrize("answer", [(206, "bytes 0-99/100"), (206, ""), (416, "bytes */10")])
def test_a_range_that_is_not_the_one_asked_for(
    mirror: Mirror, miniature: Published, content: bytes, target: Path, answer: tuple[int, str]
) -> None:
    good = breaking(content, 2 * UNIT)

    def odd(handler: BaseHTTPRequestHandler) -> None:
        if handler.headers["Range"]:
            headers(handler, answer[0], Content_Range=answer[1], Content_Length=0)
        else:
            good(handler)

    run(miniature, target, mirror.serve("/a.zip", odd))
    assert mirror.ranges() == [None, f"bytes={2 * UNIT}-", None]


def test_a_server_error_is_tried_again_and_a_refusal_is_not(
    mirror: Mirror, miniature: Published, content: bytes, target: Path
) -> None:
    gone, down = mirror.serve("/gone.zip", status(403)), mirror.serve("/down.zip", status(500))
    busy = mirror.serve("/busy.zip", status(503, 429, then=whole(content)))
    said = run(miniature, target, gone, down, busy)
    assert [path for path, _ in mirror.asked] == ["/gone.zip", *["/down.zip"] * 3, *["/busy.zip"] * 3]
    assert "answered 403" in said and "answered 500" in said


def test_a_stall_ends(
    mirror: Mirror, miniature: Published, content: bytes, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = mirror.serve("/a.zip", stalling(mirror, content, 4 * UNIT))
    with monkeypatch.context() as impatient:
        impatient.setattr(download, "TIMEOUT", (60, 1))  # enough for the beginning, and the stall is for ever
        impatient.setattr(download, "ATTEMPTS", 2)
        assert "did not answer in time" in fail(miniature, target, url)
    assert len(mirror.asked) == 2
    mirror.serve("/a.zip", breaking(content))
    run(miniature, target, url)
    assert mirror.ranges()[-1] == f"bytes={4 * UNIT}-"


def test_a_server_that_never_stops_sending(
    mirror: Mirror, miniature: Published, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1 << 20)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        headers(handler, ETag='"1"')
        try:
            while True:
                handler.wfile.write(bytes(1 << 16))
        except OSError:
            pass

    assert "sends more than 1048576 bytes" in fail(miniature, target, mirror.serve("/a.zip", endless))
    assert not list(target.parent.iterdir())  # nor are they kept


def test_a_file_that_is_announced_too_large_is_not_begun(
    mirror: Mirror, miniature: Published, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    assert "sends more than 1000 bytes" in fail(miniature, target, mirror.serve("/a.zip", whole(bytes(2000))))


@pytest.mark.parametrize("field", ["Location", "Content_Length", "ETag"])
@pytest.mark.parametrize("value", ["http://[half", "9" * 5000, "\xff\xfe", "-1", "http://127.0.0.1:99999/"])
def test_headers_that_are_nonsense(
    mirror: Mirror, miniature: Published, content: bytes, target: Path, field: str, value: str
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        headers(handler, 302 if field == "Location" else 200, **{field: value})

    good = mirror.serve("/good.zip", whole(content))
    assert f"from {good} (before it: 127.0.0.1:" in run(miniature, target, mirror.serve("/odd.zip", answer), good)


def test_a_redirection_is_followed(mirror: Mirror, miniature: Published, content: bytes, target: Path) -> None:
    final = mirror.serve("/b.zip", breaking(content, 3 * UNIT))
    run(miniature, target, mirror.serve("/a.zip", lambda handler: headers(handler, 302, Location=final)))
    assert mirror.asked[-1] == ("/b.zip", f"bytes={3 * UNIT}-")


def test_a_whole_zip_that_is_damaged_is_not_kept(
    mirror: Mirror, miniature: Published, content: bytes, target: Path
) -> None:
    middle = len(content) // 2
    damaged = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    url = mirror.serve("/a.zip", whole(damaged))
    assert "is damaged" in fail(miniature, target, url)
    mirror.serve("/a.zip", whole(content))
    run(miniature, target, url)
    assert mirror.ranges() == [None, None]


def test_offline_it_says_in_three_lines_what_failed_and_what_to_do(miniature: Published, target: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # but nobody listens
        host = f"127.0.0.1:{unused.getsockname()[1]}"
        offline = replace(miniature, mirrors=(f"http://{host}/a.zip", "http://no-such-host.invalid/b.zip"))
        download_lines = fail(offline, target, f"http://me:secret@{host}/c.zip").splitlines()
    assert len(download_lines) == 3
    assert f"{host} cannot be reached; {host} cannot be reached; no-such-host.invalid cannot" in download_lines[0]
    assert "--from" in download_lines[1] and "--dataset shapes" in download_lines[2]
    assert "secret" not in "".join(download_lines)
    assert not list(target.parent.iterdir())


def test_from_a_zip_and_from_a_folder_without_a_network(
    miniature: Published, content: bytes, copy: Path, target: Path, tmp_path: Path
) -> None:
    for source in (tmp_path / "good.zip", copy, copy.parent):
        assert str(source) in run(miniature, target, source=source)
        shutil.rmtree(target)
        assert source.exists()


def test_a_bad_source_changes_nothing(miniature: Published, copy: Path, target: Path, tmp_path: Path) -> None:
    (copy / "ply_data_train1.h5").write_bytes(b"cut")
    assert "ply_data_train1.h5 is not the published file" in fail(miniature, target, source=copy)
    assert not list(target.parent.iterdir())


def test_only_damaged_files_are_replaced_and_only_on_success(
    mirror: Mirror, miniature: Published, content: bytes, copy: Path, target: Path
) -> None:
    shutil.copytree(copy, target)
    (target / "notes.txt").write_text("mine")
    (target / "ply_data_test0.h5").write_bytes(b"damaged")
    (target / "shape_names.txt").unlink()
    whole_before = (target / "ply_data_train0.h5").stat()
    fail(miniature, target, mirror.serve("/404.zip", status(404)))
    run(miniature, target, mirror.serve("/a.zip", whole(content)))
    assert (target / "notes.txt").read_text() == "mine"
    assert (target / "ply_data_train0.h5").stat().st_ino == whole_before.st_ino


def test_missing_lists_need_no_download(miniature: Published, copy: Path, target: Path) -> None:
    shutil.copytree(copy, target)
    (target / "train_files.txt").unlink()
    (target / "shape_names.txt").write_text("cup\n")
    assert "lists written anew" in run(miniature, target)


def test_interrupted_at_any_moment_nothing_is_half_placed(
    mirror: Mirror, miniature: Published, content: bytes, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = mirror.serve("/a.zip", breaking(content))
    places = [(download, "receive"), (download.os, "replace"), (download, "take"), (download, "put_in_place")]
    for module, name in places:
        real = getattr(module, name)

        def interrupted(*arguments: Any, real: Any = real) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            install(miniature, target, miniature.damage(target), [url])
        monkeypatch.setattr(module, name, real)
        assert not target.exists() and not list(target.parent.glob(".*/unpacked"))
    run(miniature, target, url)
    assert len(mirror.asked) == 2  # after the whole zip had arrived, no more was asked for


def test_what_a_killed_process_left_is_cleared_away(
    mirror: Mirror, miniature: Published, content: bytes, target: Path
) -> None:
    left = target.parent / f".{target.name}.download" / "unpacked"
    left.mkdir(parents=True)
    (left / "ply_data_train0.h5").write_bytes(b"half")
    run(miniature, target, mirror.serve("/a.zip", whole(content)))


def test_two_processes_do_not_disturb_each_other(
    mirror: Mirror, miniature: Published, content: bytes, target: Path
) -> None:
    with download.workspace(target) as store:
        assert "Another process is fetching" in fail(miniature, target, mirror.serve("/a.zip", whole(content)))
        assert store.is_dir() and not mirror.asked
    run(miniature, target, mirror.serve("/a.zip", whole(content)))


def test_the_root_may_be_the_folder_itself_or_a_link(
    miniature: Published, copy: Path, tmp_path: Path, content: bytes
) -> None:
    assert place_of(miniature, tmp_path) == tmp_path / copy.name
    assert place_of(miniature, tmp_path / copy.name) == tmp_path / copy.name
    (tmp_path / "disk").mkdir()
    (tmp_path / copy.name).symlink_to(tmp_path / "disk" / "modelnet")
    assert place_of(miniature, tmp_path) == tmp_path / "disk" / "modelnet"
    run(miniature, place_of(miniature, tmp_path), source=tmp_path / "good.zip")
    assert miniature.damage(tmp_path / copy.name) == {}


def test_fetch_keeps_the_transfers_of_mirrors_apart(mirror: Mirror, tmp_path: Path) -> None:
    one, other = mirror.serve("/a.zip", whole(b"one")), mirror.serve("/b.zip", whole(b"other"))
    assert (fetch(one, tmp_path).read_bytes(), fetch(other, tmp_path).read_bytes()) == (b"one", b"other")
