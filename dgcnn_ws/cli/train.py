"""`train`: train a network; everything the run makes lies in its folder.

The defaults below are ModelNet40's. A data set of your own, which `prepare` wrote, has others where it has fewer than
4,000 training clouds: smaller batches, more passes, fewer points and channels, as the command says when it starts. What
is not known of how its shapes face is measured. Flags count before that.
"""

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
    from dgcnn_ws.engine.folder.checkpoint import read_json
    from dgcnn_ws.engine.parallel.processes import check_started, is_first

    if parsed.resume and parsed.config is not None:
        raise InputError("--resume goes on with the run's own settings: leave --config out.")
    if parsed.resume:  # what the user left out is what the run was started with
        check_data_root(parsed.recipe.dataset, parsed.recipe.data_root)
        folder = folder_to_resume(parsed, arguments)
        config = folder / "config.json"
        parsed = parse(arguments, here(from_config(read_json(config), config)))
        usual = None
    else:
        parsed, usual = settle(parsed, arguments)
        folder = parsed.out / (parsed.name or run_name(parsed.recipe))
    recipe = complete(parsed.recipe)
    assert recipe.devices and recipe.nodes
    check_started(recipe.devices, recipe.nodes)
    dataset = recipe.data_root if recipe.dataset == "folder" else recipe.dataset
    if is_first(recipe.nodes):
        shared = f", in {recipe.processes} processes" if recipe.processes > 1 else ""
        print(f"{folder}: {recipe.preset} with {recipe.norm}, head {recipe.head_norm}, on {dataset}{shared}")
        if usual:
            print(usual)
    with followed(parsed.wandb, folder, recipe) if is_first(recipe.nodes) else nullcontext():
        results = entry.train(recipe, folder, resume=parsed.resume)
    if is_first():
        report(results, folder, recipe)


def settle(parsed: Arguments, arguments: list[str]) -> tuple[Arguments, str | None]:
    """Return the arguments with the settings that follow from others, and what is to be said of these.

    A flag counts before --config, that before the checkpoint of --from, and that before what suits the data set.
    """
    from dgcnn_ws.engine.config_file import read_recipe
    from dgcnn_ws.engine.fine_tuning import like_checkpoint
    from dgcnn_ws.engine.own_set import own_folder, suited, unseen

    def with_files(usual: Recipe) -> Arguments:
        base = usual if parsed.config is None else here(read_recipe(parsed.config, usual))
        start = parse(arguments, base).recipe.start
        if start:
            names_data = any(word.split("=")[0] in ("--dataset", "--data-root") for word in arguments)
            base = like_checkpoint(base, Path(start), with_data=not names_data)
        return parse(arguments, base)

    found = with_files(Recipe())
    check_data_root(found.recipe.dataset, found.recipe.data_root)
    own = own_folder(found.recipe)
    if own is None or (parsed.config is not None and parsed.config.suffix == ".json"):
        return found, None
    usual, words = suited(own)
    settled = with_files(usual)
    return settled, "\n".join([words, *unseen(own, settled.recipe)])


def folder_to_resume(parsed: Arguments, arguments: list[str]) -> Path:
    """Return the run's folder: by its name, or that of a run which the same flags start, or started at version 0.1."""
    if parsed.name:
        return parsed.out / parsed.name
    settled, _ = settle(parsed, arguments)
    now, then = (parsed.out / run_name(recipe) for recipe in (settled.recipe, parsed.recipe))
    return now if now.exists() or not then.exists() else then


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
    says = results["outlook"]
    print("; ".join([*([says["beside_baseline"]] if "beside_baseline" in says else []), says["training"]]))
    print(f"{results['seconds']:.0f} s of training, {results['clouds_per_second']:.1f} clouds/s; see {folder}/")
