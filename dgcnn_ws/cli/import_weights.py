"""`import FILE.t7 --out FILE.pt`: a public PyTorch DGCNN classifier as a checkpoint of this program.

The public files end in .t7 but are ordinary torch state dicts. Takes torch-pointcloud's `dgcnn.modelnet40-1024.an-tao`
too (.safetensors, or .pt), and a state dict wrapped as trainers do: under `model`, `state_dict` or `model_state_dict`,
of Lightning, DataParallel or a compiled network. The result computes the same logits; `predict` and `evaluate` take it.
It is marked as chosen on the test set, as the public networks are.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from dgcnn_ws.cli import arguments as parser
from dgcnn_ws.engine.recipe import Recipe, as_config, check_data_root, complete
from dgcnn_ws.errors import InputError
from dgcnn_ws.files import check_folder_of

if TYPE_CHECKING:
    from dgcnn_ws.datasets.frame import Frame


@dataclass(frozen=True)
class Arguments:
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The public checkpoint."""
    out: Path
    """File to write; it must not exist."""
    num_points: int = 1024
    """Points that each of its training clouds had: 1,024 or 2,048 in the public networks."""
    k: int = 20
    """Neighbours of a point, itself included: there 20 with 1,024 points, 40 with 2,048."""
    dataset: Literal["modelnet40", "modelnet10"] | str = "modelnet40"
    """Data set that `evaluate` scores it on; also the path of a folder that `prepare` wrote."""
    data_root: Path = Path("data")
    """Folder that holds the named data sets. Not for a path."""
    classes: Path | None = None
    """Text file of class names, one a line, in the order of the labels. Default: ModelNet40's 40."""


def read_names(path: Path) -> list[str]:
    """Return the class names in a text file. Raises InputError where it is missing, or they cannot be told apart."""
    from dgcnn_ws.datasets.hdf5 import can_name_classes, read_lines

    if not path.is_file():
        raise InputError(f"--classes {path} does not exist.")
    names = read_lines(path)
    if not can_name_classes(names):
        raise InputError(f"--classes {path} must list printable class names, one a line, none of them twice.")
    return names


def frame_of_data(recipe: Recipe) -> "Frame | None":
    """Return how files become the clouds of the recipe's data; None where these are neither ModelNet40 nor here."""
    from dgcnn_ws.datasets import DATASETS
    from dgcnn_ws.datasets.frame import PUBLISHED_MODELNET40
    from dgcnn_ws.datasets.hdf5 import list_files
    from dgcnn_ws.datasets.modelnet import frame_of_folder

    if recipe.dataset == "modelnet40":
        return PUBLISHED_MODELNET40
    folder = DATASETS[recipe.dataset].find(recipe.data_root)
    return frame_of_folder(folder, list_files(folder, "train")) if folder else None


def main(arguments: list[str]) -> None:
    args = parser.parse(Arguments, "import", arguments, __doc__)
    if args.out.exists():
        raise InputError(f"{args.out} already exists. Choose another --out, or delete it first.")
    check_folder_of(args.out)
    from dgcnn_ws.datasets.fetching.published import MODELNET40
    from dgcnn_ws.engine.folder.checkpoint import check_model, load_safetensors, load_tensors, save_checkpoint
    from dgcnn_ws.inference.public_weights import find_network, sizes, translate
    from dgcnn_ws.inference.state_dicts import HARMLESS

    check_data_root(args.dataset, args.data_root)
    class_names = read_names(args.classes) if args.classes else list(MODELNET40.class_names)
    is_safetensors = args.file.suffix == ".safetensors"
    found = load_safetensors(args.file) if is_safetensors else load_tensors(args.file, HARMLESS)
    try:
        _, _, beside = find_network(found)
        weights = translate(found)
        emb_dims, num_classes = sizes(weights)
    except InputError as error:
        raise InputError(f"{args.file} cannot be imported: {error}") from error
    if num_classes != len(class_names):
        raise InputError(
            f"{args.file} tells {num_classes} classes apart, but {args.classes or 'ModelNet40'} names "
            f"{len(class_names)}. Name them with --classes, in the order of the labels."
        )
    recipe = complete(
        Recipe(
            dataset=args.dataset,
            data_root=args.data_root,
            norm="bn",
            num_points=args.num_points,
            k=args.k,
            emb_dims=emb_dims,
            optimizer="sgd",
            select="test",
        )
    )
    check_model(args.file, recipe, num_classes, weights)
    frame = frame_of_data(recipe)
    content = {"config": as_config(recipe), "class_names": class_names, "epoch": 0, "model": weights}
    content["frame"] = asdict(frame) if frame else None
    save_checkpoint(args.out, content)
    if beside:
        print(
            f"left out, beside the network: {', '.join(beside[:5])}"
            + f" and {len(beside) - 5} more" * (len(beside) > 5)
        )
    print(f"{args.out}: {num_classes} classes, {args.num_points} points, k = {args.k}, emb_dims {emb_dims}")
