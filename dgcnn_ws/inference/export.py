"""A network as one file that runs without this package: ONNX, or torch.export's .pt2, neighbour search inside.

What is traced is the fused network. Its operators are opaque to torch.export, and each is then replaced by plain
torch (`ops.reference`), so the file holds standard operators alone and convolves points, not edges. Standardized
weights go into it as plain ones.
"""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from dgcnn_ws import __version__ as dgcnn_ws_version
from dgcnn_ws.errors import InputError
from dgcnn_ws.extras import need
from dgcnn_ws.files import check_folder_of, replacing
from dgcnn_ws.nn.convert import fuse
from dgcnn_ws.nn.edge_conv import EdgeBlock
from dgcnn_ws.ops import reference

SIZES = ((1, 1024), (8, 256), (5, 777))  # clouds and points of the batches that a file is checked on
PRECISION = (
    "float32. OpenVINO takes bfloat16 by itself on processors that have it: compile with "
    "{'INFERENCE_PRECISION_HINT': 'f32'}. TensorRT: without TF32, FP16 and BF16."
)
TOLERANCE = 1e-4  # per logit, relative to the largest where that is above 1

Inputs = Callable[[int, int], tuple[Tensor, ...]]
Runner = Callable[..., Tensor]


@dataclass(frozen=True)
class Check:
    """How far a file's logits are from torch's on one batch, relative to the largest one (or to 1): the median over
    clouds, or over points where each point has logits, and the largest.
    """

    batch: int
    num_points: int
    median: float
    largest: float


def random_clouds(batch: int, num_points: int, channels: int = 3) -> tuple[Tensor, ...]:
    """Return points (batch, channels, num_points) as the only input.

    Coordinates are spread evenly in the unit sphere, what follows them from 0 to 1.
    """
    direction = F.normalize(torch.randn(batch, 3, num_points), dim=1)
    points = direction * torch.rand(batch, 1, num_points).pow(1 / 3)
    return (torch.cat([points, torch.rand(batch, channels - 3, num_points)], dim=1) if channels > 3 else points,)


def channels_of(model: nn.Module) -> int:
    """Return how many channels of a point a network reads: its first EdgeConv's, and 3 where it has none."""
    first = next((block for block in model.modules() if isinstance(block, EdgeBlock)), None)
    return 3 if first is None else first.conv.weight.shape[1] // 2


def export(
    model: nn.Module,
    path: str | Path,
    *,
    inputs: Inputs | None = None,
    sizes: Sequence[tuple[int, int]] = SIZES,
    metadata: dict[str, Any] | None = None,
) -> list[Check]:
    """Write `model` in evaluation mode to `path`, after a check of the file's bytes against torch.

    Number of clouds and number of points stay free. The file's inputs are called `points`, `category` ..., its
    output `logits`. Two points at almost the same distance may change places in a neighbourhood, since the last bits of
    products differ from program to program: a few clouds then differ by more than the rest. So the file is
    refused where the median difference of a batch is above 1e-4.

    Args:
        model: (B, C, N) and maybe other inputs whose first dimension is B -> (B, num_classes) or (B, parts, N).
        path: ends in `.onnx` (needs onnx, onnxscript and onnxruntime: the extra `[export]`) or in
            `.pt2`, which `torch.export.load` reads.
        inputs: makes the model's inputs for a number of clouds and of points. Default: random clouds.
        sizes: the batches to check, (clouds, points) each, with points at least the largest k.
        metadata: JSON-ready values to store in the file, beside the precision that it needs: ONNX's metadata, or
            `metadata.json` beside the program.

    Returns:
        A check for each of `sizes`.

    Raises:
        InputError: another ending, a package is missing, or the file does not compute what torch does.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise InputError(f"{path} is of no known format. End it in {' or '.join(FORMATS)}.")
    check_folder_of(path)
    write, load = FORMATS[path.suffix]
    if path.suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            need(package, "export", f"{path}, unlike a .pt2 file,")
    model = exportable(model)
    inputs = inputs or partial(random_clouds, channels=channels_of(model))
    program = trace(model, inputs(2, min(points for _, points in sizes)))
    content = write(program, {"precision": PRECISION} | (metadata or {}))
    run = load(content)
    checks = [compare(model, run, inputs(*size)) for size in sizes]
    worst = max(check.median for check in checks)
    if not worst <= TOLERANCE:
        raise InputError(f"{path} was not written: its logits differ from torch's by {worst:.1e} in the median.")
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return checks


def exportable(model: nn.Module) -> nn.Module:
    """Return a copy of `model` on the CPU, in evaluation mode, of layers that any program knows.

    Standardized layers become torch's plain ones; blocks that need their edges are written literally, on all of them.
    """
    model = fuse(model).cpu().eval()
    for module in model.modules():
        if isinstance(module, EdgeBlock) and (len(module.deeper) or module.aggr != "max"):
            module.backend = "reference"
    return model


def trace(model: nn.Module, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """Return `model` as a program of torch's own operators, for any number of clouds and of points.

    Args:
        model: in evaluation mode, on the CPU.
        inputs: an example: points (B, C, N), then other inputs (B, ...); at least two clouds.
    """
    dynamic = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC}, *({0: Dim.DYNAMIC} for _ in inputs[1:]))
    with quiet():
        program = torch.export.export(model, inputs, dynamic_shapes=dynamic)
        ours = {node.target for node in program.graph.nodes if getattr(node.target, "namespace", "") == "dgcnn_ws"}
        return program.run_decompositions({target: in_plain_torch(target) for target in ours})


def in_plain_torch(operator: torch._ops.OpOverload) -> Callable[..., Any]:
    """Return a function of torch's own operators that computes what one of ours does."""
    own: dict[str, Callable[..., Any]] = {"knn": knn, "dilate": dilate, "linear": F.linear}
    own |= {"column_moments": column_moments, "mean_act": mean_act}
    return own.get(operator._opname) or getattr(reference, operator._opname)


def knn(x: Tensor, k: int) -> Tensor:
    """Return idx (B, N, k) as `ops.knn` does, by one product, which every runtime is fast at; the nearest first."""
    x = x.to(reference.compute_dtype(x))
    x = x - x.mean(1, keepdim=True)  # or squares and products would be large, and their difference rounded
    distance = x.square().sum(2).unsqueeze(1) - 2 * products(x)  # (B, N, N), up to a constant per row
    return distance.topk(k, dim=2, largest=False, sorted=True).indices


def products(x: Tensor) -> Tensor:
    """Return x xᵀ, (B, N, C) -> (B, N, N), in a form that runtimes which round the factors leave as exact as float32.

    A float32 number is the sum of three bfloat16 numbers. Products of these are exact in bfloat16 and TF32 arithmetic
    with float32 sums (torch's matmul precision `high` and `medium`, TensorFloat-32 in onnxruntime on CUDA), so rounded
    factors cost nothing; the products of the smallest parts are below float32's last bit and left out. A runtime that
    rounds sums too (OpenVINO's bfloat16) must be told to compute in float32: `PRECISION` says so in the file.
    """
    if x.dtype != torch.float32:
        return x @ x.mT
    high = x.to(torch.bfloat16).to(x.dtype)
    middle = (x - high).to(torch.bfloat16).to(x.dtype)
    low = x - high - middle
    # The largest products last: a sum that is small until then is rounded little.
    left = torch.cat([low, high, middle, middle, high, high], dim=2)  # (B, N, 6C)
    right = torch.cat([high, low, middle, high, middle, high], dim=2)
    return left @ right.mT


def dilate(x: Tensor, idx: Tensor, dilation: int) -> Tensor:
    """Return every dilation-th of idx (B, N, k), which `knn` above has put in order."""
    return idx[:, :, ::dilation]


def column_moments(y: Tensor, use_max: Tensor) -> tuple[Tensor, ...]:
    """Return what the operator does, without the link to `mean_act`, which only gradients need."""
    return *reference.column_moments(y, use_max), y.new_zeros(0)


def mean_act(
    y: Tensor, scale: Tensor, shift: Tensor, negative_slope: float, link: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what the operator does, without the means that only gradients need."""
    return reference.mean_act(y, scale, shift, negative_slope), y.new_zeros(0)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch's exporters say about themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def compare(model: nn.Module, run: Runner, inputs: tuple[Tensor, ...]) -> Check:
    """Return how far the logits (B, answers, ...) that `run` computes from `inputs` are from the model's."""
    with torch.inference_mode():
        expected = model(*inputs)
    difference = (run(*inputs) - expected).abs().amax(1) / expected.abs().max().clamp_min(1)
    batch, _, num_points = inputs[0].shape
    return Check(batch, num_points, difference.median().item(), difference.max().item())


def to_onnx(program: ExportedProgram, metadata: dict[str, Any]) -> bytes:
    """Return the program as an ONNX file's bytes."""
    names = ["points", "category"][: len(program.graph_signature.user_inputs)]
    axes = ({0: "batch", 2: "points"}, {0: "batch"})[: len(names)]
    with quiet():
        exported = torch.onnx.export(
            program,
            program.example_inputs[0],
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=axes,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    # Without a number runtimes report the largest there is.
    exported.model.model_version = 1
    exported.model.producer_name, exported.model.producer_version = "dgcnn_ws", dgcnn_ws_version
    exported.model.metadata_props.update({name: json.dumps(value) for name, value in metadata.items()})
    return exported.model_proto.SerializeToString()


def load_onnx(content: bytes) -> Runner:
    """Return a function that runs an ONNX file's bytes in onnxruntime, on torch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [argument.name for argument in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run


def to_pt2(program: ExportedProgram, metadata: dict[str, Any]) -> bytes:
    """Return the program as the bytes of a file for `torch.export.load`."""
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(metadata)})
    return buffer.getvalue()


def load_pt2(content: bytes) -> Runner:
    """Return a function that runs the bytes of `to_pt2`."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(*inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            return module(*inputs)

    return run


FORMATS = {".onnx": (to_onnx, load_onnx), ".pt2": (to_pt2, load_pt2)}
