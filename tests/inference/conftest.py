"""Checkpoints of networks that have seen something, without the minutes of a training; a hub on this machine."""

import base64
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from dgcnn_ws.engine.folder.checkpoint import save_checkpoint, write_json
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, complete

SCORES = {"overall_accuracy": 0.9, "mean_class_accuracy": 0.875, "loss": 0.5, "num_clouds": 40, "confusion": []}


def shaken(recipe: Recipe, num_classes: int, num_parts: int = 0) -> torch.nn.Module:
    """Return a network whose answers differ from cloud to cloud, with nothing at its initial value."""
    torch.manual_seed(1)
    model = build_model(recipe, num_classes, num_parts)
    with torch.no_grad():
        category = (torch.arange(8) % num_classes,) if num_parts else ()
        for _ in range(3):
            model(torch.randn(8, 3, 32) * torch.rand(8, 3, 1), *category)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's folder: three classes, best.pt with a temperature, results.json."""
    small: dict[str, Any] = {"k": 5, "emb_dims": 32, "num_points": 24, "epochs": 3, "groups": 16, "head_norm": "est"}
    recipe = complete(Recipe(**small, data_root=tmp_path / "secret/place"))
    content: dict[str, Any] = {
        "config": as_config(recipe),
        "class_names": ["ball", "pole", "sheet"],
        "part_names": [],
        "frame": {"up": "z", "num_points": 48, "draw": "contents"},
        "temperature": 0.5,
        "epoch": 2,
        "model": shaken(recipe, 3).state_dict(),
    }
    folder = tmp_path / "run"
    folder.mkdir()
    save_checkpoint(folder / "best.pt", content)
    per_class = {"ball": 1.0, "pole": 0.75, "sheet": None}
    write_json(folder / "results.json", {"best": SCORES | {"per_class": per_class}, "last": SCORES})
    return folder


@pytest.fixture
def segmentation(tmp_path: Path) -> Path:
    """A checkpoint of a segmentation of two categories into three parts."""
    recipe = complete(Recipe(task="segment", k=5, emb_dims=32, num_points=24))
    content: dict[str, Any] = {
        "config": as_config(recipe),
        "class_names": ["mug", "table"],
        "part_names": ["handle", "leg", "top"],
        "frame": {"up": "y", "num_points": 24},
        "model": shaken(recipe, 2, 3).state_dict(),
    }
    save_checkpoint(tmp_path / "segment.pt", content)
    return tmp_path / "segment.pt"


# --- What huggingface_hub asks a server for to make a repository, send files and fetch them. ---

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Keeps the files of repositories in memory, as `files[repository][path]`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, dict[str, bytes]] = {}
        self.unknown: list[str] = []  # requests that nothing here answers

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self, content: Any, headers: dict[str, str] | None = None, code: int = 200) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0].split("/")
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
            self.server.files.setdefault(name, {})
            self.answer({"url": f"{self.server.url}/{name}", "name": name, "id": name})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif len(path) > 5 and path[5] == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif len(path) > 5 and path[5] == "commit":
            repository = self.server.files["/".join(path[3:5])]
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    repository[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.server.url}/{'/'.join(path[3:5])}/commit/{COMMIT}"
            self.answer({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})
        else:
            self.nothing()

    def do_GET(self) -> None:
        path = self.path.split("?")[0].split("/")
        file = self.server.files.get("/".join(path[1:3]), {}).get("/".join(path[5:]))
        if len(path) > 5 and path[3] == "resolve" and file is not None:
            tag = hashlib.sha1(file).hexdigest()
            self.answer(file, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
        elif path[1:3] == ["api", "models"] and "/".join(path[3:5]) in self.server.files:
            names = [{"rfilename": name} for name in self.server.files["/".join(path[3:5])]]
            self.answer({"id": "/".join(path[3:5]), "sha": COMMIT, "siblings": names})
        else:
            self.nothing()

    do_HEAD = do_GET

    def nothing(self) -> None:
        self.server.unknown.append(f"{self.command} {self.path}")
        self.answer({"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}, 404)


@pytest.fixture
def hub() -> Iterator[Hub]:
    """A hub that is empty at first."""
    with Hub() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
