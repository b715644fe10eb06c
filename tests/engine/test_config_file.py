"""Settings from another run's config.json, and from YAML that names some."""

from pathlib import Path

import pytest

from dgcnn_ws.cli import train
from dgcnn_ws.engine import entry
from dgcnn_ws.engine.config_file import read_recipe
from dgcnn_ws.engine.folder.checkpoint import write_json
from dgcnn_ws.engine.recipe import Recipe, as_config, complete
from dgcnn_ws.errors import InputError


def test_a_runs_own_settings(tmp_path: Path) -> None:
    recipe = complete(Recipe(norm="bn", preset="paper", lr=0.02, num_points=64, devices=1, nodes=1))
    write_json(tmp_path / "config.json", as_config(recipe) | {"data": "abc", "environment": {}})
    assert read_recipe(tmp_path / "config.json") == recipe


def test_yaml_names_some_and_leaves_the_rest_open(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("# mine\nnorm: bn\nlr: 1e-2\nweight-decay: 0\nprecision: 32\ndata_root: here\nstream: true\n")
    expected = Recipe(norm="bn", lr=0.01, weight_decay=0.0, precision="32", data_root=Path("here"), stream=True)
    assert read_recipe(file) == expected
    assert complete(read_recipe(file)).head_norm == "bn"  # follows from the norm
    file.write_text("# nothing\n")
    assert read_recipe(file) == Recipe()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 0.1", "no setting 'learning_rate'"),
        ("lr: fast", "'lr'"),
        ("norm: [bn]", "norm"),
        ("norm: batch", "batch"),
        ("- norm", "name settings, a line each"),
        ("a: b: c", "neither a run's config.json nor YAML"),
        ("!!python/object/apply:os.system ['true']", "neither"),
    ],
)
def test_what_is_no_setting(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        complete(read_recipe(tmp_path / "bad.yaml"))
    with pytest.raises(InputError, match="does not exist"):
        read_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    "text, head",
    [
        ("task: segment", "est"),
        ("batch_size: 1", "est"),
        ("cuda_graph: true\nmicro_batch: 4", "est"),
        ("cuda_graph: true\nbatch_size: 64", "bn_whole"),
        ("norm: bn\nhead_norm: est\nmicro_batch: 1", "est"),
    ],
)
def test_the_default_head_is_that_of_the_whole_recipe(tmp_path: Path, text: str, head: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    assert complete(read_recipe(tmp_path / "a.yaml")).head_norm == head


def test_flags_beside_the_file_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(entry, "train", lambda recipe, folder, resume: seen.append(recipe))
    monkeypatch.setattr(train, "report", lambda *_: None)
    (tmp_path / "mine.yaml").write_text("norm: gn\nlr: 0.5\nepochs: 7\n")
    train.main(["--config", str(tmp_path / "mine.yaml"), "--lr", "0.25", "--out", str(tmp_path)])
    (recipe,) = seen
    assert (recipe.norm, recipe.lr, recipe.epochs, recipe.head_norm) == ("gn", 0.25, 7, "bn_whole")
    with pytest.raises(InputError, match="leave --config out"):
        train.main(["--config", str(tmp_path / "mine.yaml"), "--resume", "--out", str(tmp_path)])


def test_weights_and_biases_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(InputError, match="pip install wandb"):
        train.main(["--wandb", "mine", "--out", str(tmp_path)])
    assert not list(tmp_path.iterdir())
