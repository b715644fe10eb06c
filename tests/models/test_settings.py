"""Settings beside the weights: a state dict of another k, norm or groups is an error, not a score."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn

from dgcnn_ws.engine.recipe import Recipe, build_model, complete
from dgcnn_ws.models import DGCNN, DGCNNSeg, DGCNNTNet
from dgcnn_ws.models.settings import KEY

SMALL = {"k": 5, "emb_dims": 24, "hidden": (16, 12)}
KINDS = {
    "DGCNN": lambda **kwargs: DGCNN(4, **{**SMALL, "widths": (8, 16), "groups": 4, **kwargs}),
    "DGCNNTNet": lambda **kwargs: DGCNNTNet(4, **{**SMALL, "widths": (8, 16), "groups": 4, **kwargs}),
    "DGCNNSeg": lambda **kwargs: DGCNNSeg(4, **{**SMALL, "widths": ((8, 8), (16,)), "groups": 4, **kwargs}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("other", [{"groups": 2}, {"k": 4}, {"norm": "gn"}, {"head_norm": "none"}])
def test_weights_of_another_setting_are_refused(kind: str, other: dict[str, object]) -> None:
    same: dict[str, object] = {"head_norm": "gn" if kind != "DGCNNSeg" or "norm" in other else "ln"}
    state = KINDS[kind](**{**same, **other}).state_dict()
    KINDS[kind](**{**same, **other}).load_state_dict(state)
    model = KINDS[kind](**same)
    assert model.state_dict().keys() == state.keys() or "head_norm" in other
    with pytest.raises(RuntimeError, match=f"of a network with {next(iter(other))}|head_norm"):
        model.load_state_dict(state)


def test_the_sentence_says_both_values_and_the_way_out() -> None:
    with pytest.raises(
        RuntimeError, match=r"groups 2, and this one has 4\. Make it with that setting, let dgcnn_ws\.load"
    ):
        KINDS["DGCNN"]().load_state_dict(KINDS["DGCNN"](groups=2).state_dict())


def test_who_does_not_want_to_know_says_so() -> None:
    state = KINDS["DGCNN"](groups=2, k=4).state_dict()
    del state[KEY]
    with pytest.warns(UserWarning, match="does not say which settings"):
        KINDS["DGCNN"]().load_state_dict(state)


def test_groups_do_not_matter_where_no_norm_has_any() -> None:
    state = KINDS["DGCNN"](norm="bn", groups=2).state_dict()
    KINDS["DGCNN"](norm="bn", groups=4).load_state_dict(state)


def test_older_state_dicts_load_with_a_warning() -> None:
    model = KINDS["DGCNN"]()
    state = {name: value for name, value in model.state_dict().items() if name != KEY}
    with pytest.warns(UserWarning, match="does not say which settings .* k 5, norm ws_gn, head_norm est, groups 4"):
        result = KINDS["DGCNN"]().load_state_dict(state)
    assert not result.missing_keys and not result.unexpected_keys


def test_inside_another_network() -> None:
    class Pair(nn.Module):
        def __init__(self, k: int) -> None:
            super().__init__()
            self.one, self.other = KINDS["DGCNN"](), KINDS["DGCNN"](k=k)

    Pair(6).load_state_dict(Pair(6).state_dict())
    with pytest.raises(RuntimeError, match="k 6, and this one has 5"):
        Pair(5).load_state_dict(Pair(6).state_dict())


def test_what_people_do_with_state_dicts() -> None:
    model = KINDS["DGCNN"]()
    state = model.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    mean = {name: (value + 2 * value) / 3 for name, value in state.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for changed in (
            torch.load(buffer, weights_only=True),
            copy.deepcopy(state),
            {name: value.double() for name, value in state.items()},
            mean,
            KINDS["DGCNN"]().half().state_dict(),
        ):
            model.load_state_dict(changed)
    x = torch.randn(2, 3, 12)
    torch.testing.assert_close(torch.func.functional_call(model.eval(), dict(state), x), model(x))


@pytest.mark.parametrize("damaged", [torch.zeros(3), torch.full((4,), 900), torch.tensor([]), "text", None])
def test_damaged_settings(damaged: object) -> None:
    model = KINDS["DGCNN"]()
    with pytest.raises(RuntimeError, match="settings in this state dict are damaged"):
        model.load_state_dict({**model.state_dict(), KEY: damaged})


@pytest.mark.parametrize(
    "recipe, model",
    [
        (Recipe(), lambda: DGCNN(3, head_norm="bn")),  # which the command trains on the whole batch
        (Recipe(batch_size=16), lambda: DGCNN(3)),
        (Recipe(preset="paper"), lambda: DGCNNTNet(3, head_norm="gn")),
        (Recipe(task="segment"), lambda: DGCNNSeg(5, k=20, num_categories=3)),
    ],
)
def test_the_class_and_the_command_make_the_same_network(recipe: Recipe, model: object) -> None:
    assert callable(model)
    with torch.device("meta"):
        assert build_model(complete(recipe), 3, 5).settings == model().settings
