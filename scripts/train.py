"""`python main.py train`: train a network; everything the run makes lies in its folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from lightning_fabric.utilities import rank_zero_only

from dgcnn_ws.engine.checkpoint import read_json
from dgcnn_ws.engine.claim import recording, sole
from dgcnn_ws.engine.recipe import Recipe, complete, dataset_name, from_config, name_folder
from dgcnn_ws.engine.training import Run


@dataclass(frozen=True)
class Arguments:
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path = Path("runs")
    """Folder of runs."""
    name: str | None = None
    """The run's folder inside it. Default: made of data set, preset, norm, micro-batch and seed."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Continue the run from its last checkpoint; flags left out keep the run's own settings."""


def parse(arguments: list[str], recipe: Recipe) -> Arguments:
    return tyro.cli(Arguments, prog="main.py train", args=arguments, default=Arguments(recipe), description=__doc__)


def run_name(recipe: Recipe) -> str:
    micro_batch = recipe.micro_batch or recipe.batch_size
    recipe = name_folder(recipe)
    network = recipe.task if recipe.task == "segment" else recipe.preset
    return f"{dataset_name(recipe)}-{network}-{recipe.norm}-mb{micro_batch}-seed{recipe.seed}"


def train(recipe: Recipe, folder: Path, resume: bool) -> dict[str, Any]:
    if getattr(rank_zero_only, "rank", 0):  # the first process holds the folder for all
        return Run(recipe, folder, resume).train()
    with sole(folder):
        run = Run(recipe, folder, resume)
        with recording(folder):
            return run.train()


def main(arguments: list[str]) -> None:
    parsed = parse(arguments, Recipe())
    folder = parsed.out / (parsed.name or run_name(parsed.recipe))
    if parsed.resume:  # what the user left out is what the run was started with
        config = folder / "config.json"
        parsed = parse(arguments, from_config(read_json(config), config))
    recipe = complete(parsed.recipe)
    dataset = recipe.data_root if recipe.dataset == "folder" else recipe.dataset
    print(f"{folder}: {recipe.preset} with {recipe.norm}, head {recipe.head_norm}, on {dataset}")
    results = train(recipe, folder, parsed.resume)
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
