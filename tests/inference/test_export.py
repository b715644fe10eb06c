"""Exported files: what onnxruntime and torch.export compute from them is what the network computes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dgcnn_ws import DGCNN, DGCNNSeg, EdgeConv
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference import export as exporting
from dgcnn_ws.inference.export import export, random_clouds
from dgcnn_ws.models import DGCNNTNet

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

SMALL = {"k": 4, "widths": (8, 12), "emb_dims": 16, "hidden": (8,), "groups": 4}
SIZES = ((1, 32), (5, 20), (2, 51))


class Blocks(nn.Module):
    """EdgeConvs of every kind: deeper, dilated, with a mean."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            EdgeConv(3, [8, 8], k=4, groups=4),
            EdgeConv(8, 12, k=3, dilation=2, norm="ws_bcn", groups=4),
            EdgeConv(12, 5, k=4, aggr="mean", norm="bn"),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).mean(2)


NETWORKS = {
    "ws_gn": lambda: DGCNN(3, norm="ws_gn", **SMALL),
    "tnet": lambda: DGCNNTNet(3, norm="ws_bcn", **SMALL),
    "blocks": Blocks,
}


def network(kind: str) -> nn.Module:
    """Return a network whose statistics are none of their initial values."""
    model = NETWORKS[kind]()
    with torch.no_grad():
        for _ in range(3):
            model(*random_clouds(8, 24))
        for name, parameter in model.named_parameters():
            if "norm" in name:  # factors of both signs
                parameter += torch.randn_like(parameter)
    return model.eval()


@pytest.mark.parametrize("kind", NETWORKS)
def test_onnxruntime_computes_the_same_at_any_size(kind: str, tmp_path: Path) -> None:
    model, path = network(kind), tmp_path / "model.onnx"
    checks = export(model, path, sizes=SIZES, metadata={"class_names": ["a", "b", "c"], "k": 4})
    assert [(check.batch, check.num_points) for check in checks] == list(SIZES)
    session = onnxruntime.InferenceSession(path)
    assert [(i.name, i.shape) for i in session.get_inputs()] == [("points", ["batch", 3, "points"])]
    for batch, num_points in ((1, 40), (3, 33), (7, 12)):
        (points,) = random_clouds(batch, num_points)
        (logits,) = session.run(["logits"], {"points": points.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), model(points), rtol=1e-4, atol=1e-4)
    proto = onnx.load(path)
    onnx.checker.check_model(proto)
    assert {opset.domain for opset in proto.opset_import} == {""}  # standard operators alone
    metadata = {entry.key: json.loads(entry.value) for entry in proto.metadata_props}
    assert metadata.pop("precision").startswith("float32")
    assert metadata == {"class_names": ["a", "b", "c"], "k": 4}


def test_a_segmentation_takes_categories_too(tmp_path: Path) -> None:
    model, path = DGCNNSeg(5, k=4, widths=((8, 8), (12,)), emb_dims=16, hidden=(8,), num_categories=3), "model.onnx"

    def inputs(batch: int, num_points: int) -> tuple[Tensor, ...]:
        return *random_clouds(batch, num_points), torch.arange(batch) % 3

    export(model, tmp_path / path, inputs=inputs, sizes=SIZES)
    session = onnxruntime.InferenceSession(tmp_path / path)
    points, category = inputs(4, 30)
    (logits,) = session.run(["logits"], {"points": points.numpy(), "category": category.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), model.eval()(points, category), rtol=1e-4, atol=1e-4)


def test_a_pt2_file_runs_without_this_package(tmp_path: Path) -> None:
    model, path = network("ws_gn"), tmp_path / "model.pt2"
    export(model, path, sizes=SIZES, metadata={"k": 4})
    (points,) = random_clouds(3, 40)
    torch.save({"points": points, "logits": model(points).detach()}, tmp_path / "expected.pt")
    program = """
import sys, torch
sys.modules["dgcnn_ws"] = None  # an import of it fails
extra = {"metadata.json": ""}
module = torch.export.load("model.pt2", extra_files=extra).module()
expected = torch.load("expected.pt")
torch.testing.assert_close(module(expected["points"]), expected["logits"], rtol=1e-4, atol=1e-4)
assert '"k": 4' in extra["metadata.json"] and '"precision": "float32' in extra["metadata.json"]
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_network_stays_as_it_was(tmp_path: Path) -> None:
    model = network("blocks").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    text = repr(model)
    export(model, tmp_path / "model.pt2", sizes=((1, 20),))
    assert model.training and repr(model) == text
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_point_off(x: Tensor, k: int) -> Tensor:
        return exporting_knn(x, k + 1)[:, :, 1:]

    exporting_knn = exporting.knn
    monkeypatch.setattr(exporting, "knn", one_point_off)
    with pytest.raises(InputError, match=r"model\.pt2 was not written: its logits differ from torch's by"):
        export(EdgeConv(3, 5, k=4), tmp_path / "model.pt2", sizes=((4, 20),))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_packages(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"needs {package}: pip install 'dgcnn_ws\[export\]'"):
        export(network("ws_gn"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_refuses_other_endings_and_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.tflite is of no known format. End it in \.onnx or \.pt2"):
        export(nn.Identity(), tmp_path / "model.tflite")
    with pytest.raises(InputError, match="is not a folder"):
        export(nn.Identity(), tmp_path / "no/model.onnx")


class Rounding(torch.fx.Interpreter):
    """Runs a program with the factors of the searches' products rounded to bfloat16 or TF32, as runtimes do."""

    def __init__(self, module: torch.fx.GraphModule, bits: int) -> None:
        super().__init__(module)
        self.dropped = 23 - bits

    def rounded(self, x: Tensor) -> Tensor:
        scale = 1 << self.dropped
        bits = x.contiguous().view(torch.int32)
        return ((bits + scale // 2) & -scale).view(torch.float32)

    def call_function(self, target: object, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        if getattr(target, "_opname", "") in ("bmm", "matmul"):
            one, other = args
            assert isinstance(one, Tensor) and isinstance(other, Tensor)
            if one.shape == other.mT.shape:  # a search's (B, N, C) and (B, C, N)
                args = (self.rounded(one), self.rounded(other))
        return super().call_function(target, args, kwargs)  # type: ignore[arg-type]


def test_rounded_factors_find_the_same_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (points,) = exporting.exportable(network("ws_gn")), random_clouds(8, 60)
    moved = {7: [], 10: []}  # bits of bfloat16 and of TF32
    with torch.no_grad():
        expected = model(points)
        for products in (exporting.products, lambda x: x @ x.mT):
            monkeypatch.setattr(exporting, "products", products)
            program = exporting.trace(model, (points,)).module()
            for bits, found in moved.items():
                found.append((Rounding(program, bits).run(points) - expected).abs().max())
    for parts, plain in moved.values():
        assert parts < 1e-5 < 1e-3 < plain


def test_products_of_parts_are_as_exact_as_float32s() -> None:
    x = torch.randn(3, 50, 20) * torch.logspace(-3, 3, 20)
    exact = x.double() @ x.double().mT
    size = x.double().norm(dim=2)
    error = (exporting.products(x) - exact).abs() / (size[:, :, None] * size[:, None])
    assert error.max() < 2e-6  # of bfloat16's product 6e-3, of float32's 1e-7
    assert torch.equal(exporting.products(x.double()), x.double() @ x.double().mT)
