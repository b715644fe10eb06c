"""The paper's network: its layers, the T-Net's identity, its symmetries, and the micro-batch law."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dgcnn_ws import ops
from dgcnn_ws.errors import InputError
from dgcnn_ws.models import DGCNNTNet
from dgcnn_ws.nn import NORMS, one_update

TNET = [(6, 64), (64, 128), (128, 1024), (1024, 512), (512, 256), (256, 9)]
BODY = [(6, 64), (128, 64), (128, 64), (128, 128), (320, 1024), (1024, 512), (512, 256), (256, 40)]
SMALL = {"widths": (8, 8), "emb_dims": 24, "hidden": (16, 12), "groups": 4, "k": 4}


def network(norm: str, head_norm: str | None = None, backend: str = "auto") -> DGCNNTNet:
    """Return a small network in double precision, without dropout, whose T-Net and statistics have moved."""
    torch.manual_seed(0)
    model = DGCNNTNet(3, norm=norm, head_norm=head_norm, backend=backend, dropout=0.0, **SMALL).double()
    nn.init.normal_(model.tnet.head.layers[-1].weight, std=0.05)
    with torch.no_grad():
        model(clouds(4, seed=7))
    return model


def clouds(batch: int, points: int = 12, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.rand(batch, 3, 1, generator=generator, dtype=torch.float64)
    return torch.randn(batch, 3, points, generator=generator, dtype=torch.float64) * spread


def accumulate(model: nn.Module, micro_batch: int) -> dict[str, Tensor]:
    """Return the gradients of the mean loss over three clouds that the model sees in micro-batches."""
    model = copy.deepcopy(model)
    with one_update(model):
        for x, y in zip(clouds(3).split(micro_batch), torch.arange(3).split(micro_batch), strict=True):
            (F.cross_entropy(model(x), y, reduction="sum") / 3).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {**gradients, **dict(model.named_buffers())}


def test_layers_of_the_paper() -> None:
    with torch.device("meta"):
        model = DGCNNTNet(40, norm="bn")
    layers = [m for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Linear))]
    assert [(layer.weight.shape[1], layer.weight.shape[0]) for layer in layers] == TNET + BODY
    # Every layer has a bias, and every one but the two last a norm's factor and term.
    weights = sum(c_in * c_out + c_out for c_in, c_out in TNET + BODY)
    norms = sum(2 * c_out for _, c_out in TNET[:-1] + BODY[:-1])
    assert sum(parameter.numel() for parameter in model.parameters()) == weights + norms
    assert [m.p for m in model.head.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert {m.eps for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)} == {1e-3}
    assert not any(isinstance(m, nn.LeakyReLU) for m in model.modules())


def test_group_norm_of_the_paper() -> None:
    with torch.device("meta"):
        model = DGCNNTNet(norm="ws_gn", head_norm="gn")
    norms = [m for m in model.modules() if isinstance(m, nn.GroupNorm)]
    assert len(norms) == len(TNET + BODY) - 2
    assert {(m.num_groups, m.eps) for m in norms} == {(16, 1e-5)}


@pytest.mark.parametrize("norm", NORMS)
def test_tnet_predicts_identity_at_initialisation(norm: str) -> None:
    tnet, x = DGCNNTNet(norm=norm, k=4).tnet, clouds(2).float()
    torch.testing.assert_close(tnet(x, ops.knn(x.transpose(1, 2), 4)), torch.eye(3).expand(2, 3, 3))


def test_tnet_aligns_the_points() -> None:
    """A T-Net that predicts T makes of a cloud what the untouched network makes of its points p T."""
    model, x = network("gn").eval(), clouds(2)
    T = torch.randn(3, 3, dtype=torch.float64)
    last = model.tnet.head.layers[-1]
    nn.init.zeros_(last.weight)
    with torch.no_grad():
        last.bias.copy_(T.flatten())
        out = model(x)
        last.bias.copy_(torch.eye(3).flatten())
        torch.testing.assert_close(out, model((x.transpose(1, 2) @ T).transpose(1, 2)))


def test_coordinates_keep_their_bits_under_autocast() -> None:
    model, x, seen = network("gn").float().eval(), clouds(2).float(), []
    nn.init.zeros_(model.tnet.head.layers[-1].weight)  # the identity
    model.edge_convs[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(x)
    assert torch.equal(seen[0], x)


def test_more_channels_than_coordinates() -> None:
    model = DGCNNTNet(7, norm="gn", in_channels=5, **SMALL).eval()
    x = torch.randn(2, 5, 12)
    out = model(x)
    assert out.shape == (2, 7)
    x[:, 3:] = 0
    assert not torch.allclose(model(x), out), "the other channels count"
    with pytest.raises(InputError, match="in_channels=2, but the T-Net aligns 3 coordinates"):
        DGCNNTNet(in_channels=2)


@pytest.mark.parametrize("norm", NORMS)
def test_symmetries_in_eval_mode(norm: str) -> None:
    model, x = network(norm).eval(), clouds(3)
    out = model(x)
    assert out.shape == (3, 3)
    torch.testing.assert_close(model(x[..., torch.randperm(12)]), out)
    torch.testing.assert_close(torch.cat([model(part) for part in x.split(1)]), out)


@pytest.mark.parametrize("norm", ["ws_gn", "bn"])
def test_backends_agree(norm: str) -> None:
    reference, fused = network(norm, backend="reference"), network(norm, backend="fused")
    assert {m.backend for m in reference.modules() if hasattr(m, "backend")} == {"reference"}
    expected, found = accumulate(reference, 3), accumulate(fused, 3)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm, head_norm", [("gn", "gn"), ("ws_gn", None), ("ws_bcn", None)])
def test_micro_batch_law(norm: str, head_norm: str | None) -> None:
    model = network(norm, head_norm)
    whole, parts = accumulate(model, 3), accumulate(model, 1)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-9, atol=1e-9)


def test_batch_norm_breaks_the_micro_batch_law() -> None:
    model = network("bn", "none")
    whole, parts = accumulate(model, 3), accumulate(model, 1)
    name = "edge_convs.0.conv.weight"
    assert (whole[name] - parts[name]).norm() > 0.1 * whole[name].norm()


def test_errors() -> None:
    with pytest.raises(InputError, match="k=4 neighbours need at least 4 points; this cloud has 3"):
        network("gn")(clouds(2, 3))
    for kwargs in ({"norm": "in"}, {"head_norm": "in"}, {"backend": "in"}):
        with pytest.raises(InputError, match="'in' is unknown"):
            DGCNNTNet(**kwargs)
