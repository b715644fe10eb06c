"""`train`: train a network; everything the run makes lies in its folder."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.engine.recipe import Recipe, check_data_root, complete, dataset_name, from_config, name_folder
from dgcnn_ws.engine.stopping import Interrupted


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


def parse(arguments: list[str], recipe: Recipe) -> Arguments:
    return parser.parse(Arguments, "train", arguments, __doc__, Arguments(recipe))


def run_name(recipe: Recipe) -> str:
    micro_batch = recipe.micro_batch or recipe.batch_size  # whatever the processes: a run may go on in others
    recipe = name_folder(recipe)
    network = recipe.task if recipe.task == "segment" else recipe.preset
    goes_on = "-fine-tuned" if recipe.start else ""
    return f"{dataset_name(recipe)}-{network}-{recipe.norm}-mb{micro_batch}-seed{recipe.seed}{goes_on}"


def main(arguments: list[str]) -> None:
    parsed = parse(arguments, Recipe())
    from dgcnn_ws.engine.launch import one_voice

    with one_voice(Interrupted, KeyboardInterrupt):
        command(parsed, arguments)


def command(parsed: Arguments, arguments: list[str]) -> None:
    from dgcnn_ws.engine.checkpoint import read_json
    from dgcnn_ws.engine.processes import check_started, is_first, started

    if parsed.recipe.start and not parsed.resume:
        from dgcnn_ws.engine.fine_tuning import like_checkpoint

        names_data = any(word.split("=")[0] in ("--dataset", "--data-root") for word in arguments)
        parsed = parse(arguments, like_checkpoint(Recipe(), Path(parsed.recipe.start), with_data=not names_data))
    check_data_root(parsed.recipe.dataset, parsed.recipe.data_root)
    folder = parsed.out / (parsed.name or run_name(parsed.recipe))
    if parsed.resume:  # what the user left out is what the run was started with
        config = folder / "config.json"
        stored = from_config(read_json(config), config)
        # What torchrun or srun started counts, not what it was then.
        parsed = parse(arguments, stored if started() is None else replace(stored, devices=None, nodes=None))
    recipe = complete(parsed.recipe)
    assert recipe.devices and recipe.nodes
    check_started(recipe.devices, recipe.nodes)
    dataset = recipe.data_root if recipe.dataset == "folder" else recipe.dataset
    if is_first(recipe.nodes):
        shared = f", in {recipe.processes} processes" if recipe.processes > 1 else ""
        print(f"{folder}: {recipe.preset} with {recipe.norm}, head {recipe.head_norm}, on {dataset}{shared}")
    results = train(recipe, folder, parsed.resume)
    if is_first():
        report(results, folder, recipe)


def train(recipe: Recipe, folder: Path, resume: bool) -> dict[str, Any]:
    from dgcnn_ws.engine.launch import missing
    from dgcnn_ws.engine.processes import is_first
    from dgcnn_ws.engine.training import Run
    from dgcnn_ws.study.claim import recording, sole

    assert recipe.nodes
    first = is_first(recipe.nodes)  # it holds the folder for all
    with sole(folder) if first else nullcontext():
        with missing():
            run = Run(recipe, folder, resume)
        with recording(folder) if first else nullcontext(), missing():
            return run.train()


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
