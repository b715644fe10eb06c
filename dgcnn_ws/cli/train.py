"""`train`: train a network; everything the run makes lies in its folder."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.engine.recipe import Recipe, as_config, check_data_root, complete, from_config, run_name
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.errors import InputError


@dataclass(frozen=True)
class Arguments:
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path = Path("runs")
    """Folder of runs."""
    name: str | None = None
    """The run's folder inside it. Default: made of data set, preset, norm, micro-batch and seed."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the run from its last checkpoint; flags left out keep the run's own settings, and none of what is
    computed may change, the number of epochs neither."""
    config: Path | None = None
    """Start from these settings: another run's config.json, or YAML that names some. Flags beside it count."""
    wandb: str | None = None
    """Project at Weights & Biases that follows what TensorBoard gets (pip install wandb)."""


def parse(arguments: list[str], recipe: Recipe) -> Arguments:
    return parser.parse(Arguments, "train", arguments, __doc__, Arguments(recipe))


def main(arguments: list[str]) -> None:
    parsed = parse(arguments, Recipe())
    from dgcnn_ws.engine.parallel.launch import one_voice

    with one_voice(Interrupted, KeyboardInterrupt):
        command(parsed, arguments)


def command(parsed: Arguments, arguments: list[str]) -> None:
    from dgcnn_ws.engine import entry
    from dgcnn_ws.engine.config_file import read_recipe
    from dgcnn_ws.engine.folder.checkpoint import read_json
    from dgcnn_ws.engine.parallel.processes import check_started, is_first

    base = Recipe()
    if parsed.config is not None:
        if parsed.resume:
            raise InputError("--resume goes on with the run's own settings: leave --config out.")
        base = here(read_recipe(parsed.config))
        parsed = parse(arguments, base)
    if parsed.recipe.start and not parsed.resume:
        from dgcnn_ws.engine.fine_tuning import like_checkpoint

        names_data = any(word.split("=")[0] in ("--dataset", "--data-root") for word in arguments)
        parsed = parse(arguments, like_checkpoint(base, Path(parsed.recipe.start), with_data=not names_data))
    check_data_root(parsed.recipe.dataset, parsed.recipe.data_root)
    folder = parsed.out / (parsed.name or run_name(parsed.recipe))
    if parsed.resume:  # what the user left out is what the run was started with
        config = folder / "config.json"
        parsed = parse(arguments, here(from_config(read_json(config), config)))
    recipe = complete(parsed.recipe)
    assert recipe.devices and recipe.nodes
    check_started(recipe.devices, recipe.nodes)
    dataset = recipe.data_root if recipe.dataset == "folder" else recipe.dataset
    if is_first(recipe.nodes):
        shared = f", in {recipe.processes} processes" if recipe.processes > 1 else ""
        print(f"{folder}: {recipe.preset} with {recipe.norm}, head {recipe.head_norm}, on {dataset}{shared}")
    with followed(parsed.wandb, folder, recipe) if is_first(recipe.nodes) else nullcontext():
        results = entry.train(recipe, folder, resume=parsed.resume)
    if is_first():
        report(results, folder, recipe)


def here(recipe: Recipe) -> Recipe:
    """Return the settings of another time: what torchrun or srun started counts, not what it was then."""
    from dgcnn_ws.engine.parallel.processes import started

    return recipe if started() is None else replace(recipe, devices=None, nodes=None)


@contextmanager
def followed(project: str | None, folder: Path, recipe: Recipe) -> Iterator[None]:
    """Let Weights & Biases record what TensorBoard gets within the block; nothing where there is no project."""
    if project is None:
        yield
        return
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise InputError("--wandb needs wandb, which is not installed: pip install wandb.") from error
    with wandb.init(project=project, name=folder.name, config=as_config(recipe), sync_tensorboard=True):
        yield


def report(results: dict[str, Any], folder: Path, recipe: Recipe) -> None:
    if recipe.select == "test":
        print("best.pt was chosen ON THE TEST SET: its score is not an honest estimate.")
    for which in ("best", "last"):
        scores = results[which]
        miou = "instance mIoU {instance_miou:.2%}, class mIoU {class_miou:.2%}, " if "instance_miou" in scores else ""
        print(
            f"{which}.pt on test: overall accuracy {scores['overall_accuracy']:.2%}, mean class accuracy "
            f"{scores['mean_class_accuracy']:.2%}, {miou.format(**scores)}of {scores['num_clouds']} clouds"
        )
    print(f"{results['seconds']:.0f} s of training, {results['clouds_per_second']:.1f} clouds/s; see {folder}/")
