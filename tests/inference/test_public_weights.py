"""The public networks, written down once more in plain torch: the same logits from the same weights."""

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import nn

from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.public_weights import find_network, sizes, translate
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


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.module."])
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


class TorchPointcloudDGCNN(nn.Module):
    """torch-pointcloud 0.0.18's classifier in plain torch: linear layers with biases on [x_i ; x_j − x_i]."""

    def __init__(self, emb_dims: int, k: int, num_classes: int) -> None:
        super().__init__()
        self.k = k
        self.lins, self.norms = nn.ModuleDict(), nn.ModuleDict()
        widths = {
            f"encoder.blocks.{i}.conv.nn": size for i, size in enumerate(((6, 64), (128, 64), (128, 128), (256, 256)))
        }
        shapes = {f"{name}.lins.0": size for name, size in widths.items()}
        shapes |= {"proj.lins.0": (512, emb_dims), "head.lins.0": (2 * emb_dims, 512), "head.lins.1": (512, 256)}
        self.last = nn.Linear(256, num_classes)
        for name, size in shapes.items():
            self.lins[name.replace(".", "/")] = nn.Linear(*size)
            self.norms[name.replace(".", "/").replace("lins", "norms")] = nn.BatchNorm1d(size[1])

    def their_state_dict(self) -> dict[str, torch.Tensor]:
        state = {}
        for name, value in self.state_dict().items():
            kind, _, rest = name.partition(".")
            rest = name.removeprefix("last.") if kind == "last" else rest.replace("/", ".")
            layer, _, field = rest.rpartition(".")
            name = {"lins": f"{layer}.{field}", "norms": f"{layer}.module.{field}", "last": f"head.lins.2.{field}"}[
                kind
            ]
            state[name] = value
        return state

    def layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Linear layer and norm on the last dimension."""
        norm = self.norms[name.replace(".", "/").replace("lins", "norms")]
        y = self.lins[name.replace(".", "/")](x)
        return nn.functional.leaky_relu(norm(y.flatten(0, -2)).view_as(y), 0.2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, 3, N)
        x = x.mT
        outputs = []
        for i in range(4):
            nearest = torch.cdist(x, x).topk(self.k, largest=False).indices  # (B, N, k)
            neighbours = x[torch.arange(len(x))[:, None, None], nearest]
            centres = x[:, :, None].expand_as(neighbours)
            edges = torch.cat([centres, neighbours - centres], dim=3)
            x = self.layer(f"encoder.blocks.{i}.conv.nn.lins.0", edges).amax(2)
            outputs.append(x)
        x = self.layer("proj.lins.0", torch.cat(outputs, dim=2))
        x = torch.cat([x.amax(1), x.mean(1)], dim=1)
        return self.last(self.layer("head.lins.1", self.layer("head.lins.0", x)))


def shake(model: nn.Module) -> nn.Module:
    """Give norms what training gives them: nothing at its initial value, some factors negative."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.weight, 0.5, 0.5)
            nn.init.normal_(module.bias)
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.01, 2)
    return model.eval()


def test_torch_pointclouds_names_give_the_logits_of_its_formula() -> None:
    theirs = TorchPointcloudDGCNN(EMB_DIMS, K, NUM_CLASSES).double()
    shake(theirs)
    ours = translate(theirs.their_state_dict())
    assert sizes(ours) == (EMB_DIMS, NUM_CLASSES)
    model = DGCNN(NUM_CLASSES, K, "bn", "bn", emb_dims=EMB_DIMS).double().eval()
    model.load_state_dict(ours)
    x = torch.randn(3, 3, 40, dtype=torch.float64)
    with torch.no_grad():
        assert torch.allclose(model(x), theirs(x), rtol=1e-9, atol=1e-9)


def test_torch_pointclouds_own_network_gives_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the package is installed (`pip install torch-pointcloud==0.0.18`): its names, its network, its logits."""
    dgcnn = pytest.importorskip("torch_pointcloud.models.dgcnn")

    def knn_graph(x: torch.Tensor, k: int, batch: torch.Tensor, loop: bool) -> torch.Tensor:
        """What its own does by pyg-lib, which PyPI does not have: the k nearest of the same cloud, itself included."""
        assert loop
        distance = torch.cdist(x, x).masked_fill(batch[:, None] != batch, torch.inf)
        nearest = distance.topk(k, largest=False).indices
        return torch.stack([nearest.flatten(), torch.arange(len(x)).repeat_interleave(k)])

    monkeypatch.setattr(dgcnn, "knn_graph", knn_graph)
    theirs = dgcnn.DGCNNClassification(
        in_channels=0, num_classes=NUM_CLASSES, channels=[64, 64, 128, 256], proj_channels=EMB_DIMS,
        head_channels=[512, 256], num_neighbors=K, act="leaky_relu", act_kwargs={"negative_slope": 0.2},
        norm="batch_norm", bias=True, dropout=0.5, global_pool=["max", "mean"],
    ).double()  # fmt: skip
    shake(theirs)
    model = DGCNN(NUM_CLASSES, K, "bn", "bn", emb_dims=EMB_DIMS).double().eval()
    model.load_state_dict(translate(theirs.state_dict()))
    clouds = torch.randn(3, 40, 3, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(None, clouds.flatten(0, 1), torch.arange(3).repeat_interleave(40))
        assert torch.allclose(model(clouds.mT), expected, rtol=1e-9, atol=1e-9)


WRAPPED = {
    "optimizer beside it": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"a": {}}},
    "under model": lambda state: {"model": state, "epoch": 3},
    "twice wrapped": lambda state: {"model": {"state_dict": state}, "args": {"k": 20}},
    "Lightning": lambda state: {"state_dict": {f"net.{n}": v for n, v in state.items()}, "loops": {}, "callbacks": {}},
    "Parameters": lambda state: {n: nn.Parameter(v) if v.is_floating_point() else v for n, v in state.items()},
    "compiled": lambda state: {f"_orig_mod.module.{n}": v for n, v in state.items()},
}


@pytest.mark.parametrize("wrapping", WRAPPED)
def test_what_trainers_wrap_it_in(public: nn.Module, wrapping: str) -> None:
    plain = translate(public.state_dict())
    found = translate(WRAPPED[wrapping](public.state_dict()))
    assert found.keys() == plain.keys()
    assert all(type(found[name]) is torch.Tensor and torch.equal(found[name], plain[name]) for name in plain)


def test_what_lies_beside_the_network_is_named(public: nn.Module) -> None:
    state = {f"model.{name}": value for name, value in public.state_dict().items()}
    _, inside, beside = find_network({"state_dict": state | {"loss.weight": torch.ones(5)}})
    assert inside.keys() == public.state_dict().keys() and beside == ["loss.weight"]


def test_two_networks_in_a_file_are_not_chosen_from(public: nn.Module) -> None:
    twice = {f"{prefix}.{name}": value for name, value in public.state_dict().items() for prefix in ("model", "ema")}
    with pytest.raises(InputError, match=r"more than once, under 'ema\.' and 'model\.'"):
        translate(twice)
    with pytest.raises(InputError, match="several state dicts, model and state_dict"):
        translate({"model": public.state_dict(), "state_dict": public.state_dict()})


def test_this_programs_own_names() -> None:
    with pytest.raises(InputError, match="this program's own"):
        translate({"model": DGCNN(3, emb_dims=8).state_dict(), "class_names": ["a", "b", "c"]})
