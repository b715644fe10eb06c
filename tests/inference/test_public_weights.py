"""The public networks, written down once more in plain torch: the same logits from the same weights."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.public_weights import sizes, translate
from dgcnn_ws.models import DGCNN

EMB_DIMS, K, NUM_CLASSES = 48, 7, 5

Make = Callable[[int, int, int], nn.Module]


@pytest.fixture
def public(public_dgcnn: Make) -> nn.Module:
    """In float64, with norms as after training: nothing at its initial value, some factors negative."""
    model = public_dgcnn(EMB_DIMS, K, NUM_CLASSES).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.5, 0.5)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.01, 2)
    return model


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_the_same_logits(public: nn.Module, prefix: str, backend: str) -> None:
    state = OrderedDict((prefix + name, value) for name, value in public.state_dict().items())
    ours = translate(state)
    assert sizes(ours) == (EMB_DIMS, NUM_CLASSES)
    model = DGCNN(NUM_CLASSES, K, "bn", "bn", backend, emb_dims=EMB_DIMS).double().eval()
    model.load_state_dict(ours)  # strict: nothing is missing, nothing is left over
    x = torch.randn(3, 3, 40, dtype=torch.float64)
    with torch.no_grad():
        # The neighbour search is float32 in our network, whose k nearest are the same here.
        assert torch.allclose(model(x), public(x), rtol=1e-9, atol=1e-9)


def test_either_of_a_norms_names_is_enough(public: nn.Module) -> None:
    state = public.state_dict()
    whole = translate(state)
    for left_out in ("conv", "bn"):
        fewer = {n: v for n, v in state.items() if not (n.startswith(left_out) and (left_out == "bn") ^ (".1." in n))}
        fewer |= {n: v for n, v in state.items() if n.startswith(("bn6", "bn7"))}
        assert len(fewer) == len(state) - 25
        assert all(torch.equal(value, whole[name]) for name, value in translate(fewer).items())


def test_files_from_before_norms_counted(public: nn.Module) -> None:
    state = {n: v for n, v in public.state_dict().items() if not n.endswith("num_batches_tracked")}
    DGCNN(NUM_CLASSES, K, "bn", "bn", emb_dims=EMB_DIMS).load_state_dict(translate(state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv6.0.weight": torch.zeros(1)}, "'conv6.0.weight' is no name"),
        ({"transform_net.bn1.weight": torch.zeros(1)}, "is no name"),
        ({"bn1.weight": torch.zeros(64)}, "differs from its twin"),
        ({"linear3.weight": torch.zeros(())}, "missing or misshapen"),
        ({"linear1.weight": "text"}, "is no name"),
    ],
)
def test_other_networks(public: nn.Module, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sizes(translate(public.state_dict() | change))


@pytest.mark.parametrize("state", [None, [], {1: torch.zeros(1)}, torch.zeros(3)])
def test_no_state_dict(state: object) -> None:
    with pytest.raises(InputError, match="no state dict"):
        translate(state)


def test_an_empty_state_dict() -> None:
    with pytest.raises(InputError, match="missing"):
        sizes(translate({}))
