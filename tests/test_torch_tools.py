"""torch's own tools on these modules: compile, autocast, functional calls, copies, DDP, parametrizations."""

import copy
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from dgcnn_ws import DGCNN, EdgeConv, ops
from dgcnn_ws.nn import one_update

SMALL = {"k": 4, "widths": (8, 12), "emb_dims": 16, "hidden": (8,), "groups": 4, "dropout": 0.0}
CLOUDS, LABELS = torch.randn(4, 3, 24, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 1, 2, 0])


def network(norm: str = "ws_gn", **kwargs: object) -> DGCNN:
    model = DGCNN(3, norm=norm, **{**SMALL, **kwargs})
    with torch.no_grad():
        model(CLOUDS.flip(0))  # running statistics that are none of their initial values
    return model


def gradients(model: nn.Module, *inputs: Tensor) -> dict[str, Tensor]:
    """Return the outputs, the gradients and the buffers of a training step on a copy of the model."""
    output = model(*inputs)
    output.square().sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"output": output.detach(), **found, **dict(model.named_buffers())}


def assert_same_step(one: nn.Module, other: nn.Module, *inputs: Tensor) -> None:
    found = {name.removeprefix("_orig_mod."): value for name, value in gradients(other, *inputs).items()}
    for name, value in gradients(one, *inputs).items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("norm", ["ws_gn", "bn", "ws_bcn"])
def test_compiles_as_one_graph_and_trains_alike(norm: str) -> None:
    model = network(norm)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    assert_same_step(model, compiled, CLOUDS)  # estimates that training moves too


@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="torch's compiler needs one for C++")
@pytest.mark.skipif(
    os.environ.get("ATEN_CPU_CAPABILITY") == "default", reason="torch 2.13 then writes C++ that does not compile"
)
@pytest.mark.usefixtures("fresh_compiler")
def test_compiles_an_edge_conv_on_a_given_graph() -> None:
    layer, idx = EdgeConv(3, 8), torch.randint(0, 24, (4, 24, 5))
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True)  # with torch's default compiler
    assert_same_step(layer, compiled, CLOUDS, idx)
    with pytest.raises(RuntimeError, match="outside the cloud"):  # a kernel would read foreign memory
        compiled(CLOUDS, idx + 1)


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("norm", ["ws_gn", "ws_bn"])
def test_autocast_rounds_features_but_not_the_graph(backend: str, norm: str) -> None:
    layer = EdgeConv(3, 8, k=4, norm=norm, backend=backend)
    idx = ops.knn(CLOUDS.transpose(1, 2), 4)
    exact = layer(CLOUDS, idx)
    with torch.autocast("cpu", torch.bfloat16):
        found, rounded = layer(CLOUDS), layer(CLOUDS, idx)
    assert torch.equal(found, rounded)
    assert 0 < (rounded - exact).norm() < 0.01 * exact.norm()

    model = network(norm, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(CLOUDS)
    assert logits.dtype == torch.bfloat16
    F.cross_entropy(logits.float(), LABELS).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32 and parameter.grad.isfinite().all()


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_functional_call(backend: str) -> None:
    model, other = network(backend=backend).eval(), network(backend=backend).eval()
    values = {name: value.detach().requires_grad_() for name, value in other.named_parameters()}
    logits = torch.func.functional_call(model, values | dict(other.named_buffers()), (CLOUDS,))
    torch.testing.assert_close(logits, other(CLOUDS))
    F.cross_entropy(logits, LABELS).backward()
    F.cross_entropy(other(CLOUDS), LABELS).backward()
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(values[name].grad, parameter.grad)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm, head_norm", [("ws_gn", "est"), ("bn", "bn"), ("ws_bcn", "gn")])
def test_derivatives_of_every_kind_are_those_of_the_reference(norm: str, head_norm: str, training: bool) -> None:
    """Gradient by torch.func, forward mode, and Hessian times vector in two ways, as meta-learning takes them."""
    models = {
        backend: network(norm, head_norm=head_norm, backend=backend).double().train(training)
        for backend in ("fused", "reference")
    }
    models["reference"].load_state_dict(models["fused"].state_dict())
    found: dict[str, list[Tensor]] = {}
    for backend, model in models.items():
        values, tangents = dict(model.named_parameters()), {}
        for name, value in values.items():
            tangents[name] = torch.randn(value.shape, generator=torch.Generator().manual_seed(2), dtype=value.dtype)

        def loss(parameters: dict[str, Tensor], model: nn.Module = model) -> Tensor:
            buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
            logits = torch.func.functional_call(model, (parameters, buffers), (CLOUDS.double(),))
            return F.cross_entropy(logits, LABELS)

        gradient = torch.func.grad(loss)(values)
        _, along = torch.func.jvp(loss, (values,), (tangents,))
        _, forward_over_reverse = torch.func.jvp(torch.func.grad(loss), (values,), (tangents,))
        plain = torch.autograd.grad(loss(values), list(values.values()), create_graph=True)
        product = sum(((g * t).sum() for g, t in zip(plain, tangents.values(), strict=True)), torch.zeros(()))
        torch.testing.assert_close(list(gradient.values()), list(plain))
        torch.testing.assert_close(along, product)
        reverse = torch.autograd.grad(product, list(values.values()), allow_unused=True, materialize_grads=True)
        torch.testing.assert_close(list(reverse), list(forward_over_reverse.values()))
        found[backend] = [*plain, *reverse]
    torch.testing.assert_close(found["fused"], found["reference"])


def test_gradients_of_each_cloud_by_vmap() -> None:
    model = network().eval()

    def loss(parameters: dict[str, Tensor], cloud: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(torch.func.functional_call(model, parameters, (cloud[None],)), label[None])

    values = {name: value.detach() for name, value in model.named_parameters()}
    each = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(values, CLOUDS, LABELS)
    for row, (cloud, label) in enumerate(zip(CLOUDS, LABELS, strict=True)):
        model.zero_grad()
        F.cross_entropy(model(cloud[None]), label[None]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(each[name][row], parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_equal_and_apart(duplicate: object) -> None:
    model = network("ws_bcn")
    twin = duplicate(model)  # type: ignore[operator]
    assert_same_step(model, twin, CLOUDS)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert all(parameter.abs().sum() > 0 for name, parameter in model.named_parameters() if "conv.weight" in name)


@pytest.mark.parametrize("norm", ["ws_gn", "ws_bcn"])
def test_ddp_steps_alike_also_in_micro_batches(norm: str, tmp_path: Path) -> None:
    model = network(norm)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        twin = nn.parallel.DistributedDataParallel(copy.deepcopy(model))
        with one_update(twin), twin.no_sync():
            for cloud in CLOUDS.split(1):
                twin(cloud).square().sum().backward()
        found = {name.removeprefix("module."): p.grad for name, p in twin.named_parameters()}
        found |= {name.removeprefix("module."): buffer for name, buffer in twin.named_buffers()}
    finally:
        torch.distributed.destroy_process_group()
    with one_update(model):
        expected = gradients(model, CLOUDS)
    expected |= dict(model.named_buffers())
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


class Halved(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight.abs()


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("norm", ["ws_gn", "gn"])
def test_a_parametrization_of_the_weight_is_honoured(backend: str, norm: str) -> None:
    layer = EdgeConv(3, 8, k=5, norm=norm, backend=backend)
    plain = copy.deepcopy(layer)
    with torch.no_grad():
        plain.conv.weight.copy_(0.5 * plain.conv.weight.abs())
    before = layer(CLOUDS)
    parametrize.register_parametrization(layer.conv, "weight", Halved())
    torch.testing.assert_close(layer(CLOUDS), plain(CLOUDS))
    assert not torch.allclose(layer(CLOUDS), before, atol=1e-2)
    layer(CLOUDS).square().sum().backward()
    assert layer.conv.parametrizations.weight.original.grad.abs().sum() > 0
