"""Settings that suit a data set of one's own, which has hundreds of shapes where ModelNet40 has thousands.

What decides how well a network learns is how many steps its optimizer takes, so a small set is seen more often, in
smaller batches; fewer points and channels pay for it. The figures are those of docs/RESULTS.md, chosen on validation.
"""

from dataclasses import replace
from pathlib import Path

from dgcnn_ws.datasets import DATASETS, FolderClouds
from dgcnn_ws.datasets.frame import features_in, read_frame
from dgcnn_ws.datasets.looking.first_look import HEADINGS, read_split, suited_rotation
from dgcnn_ws.engine.recipe import GIVEN, PRESETS, Recipe

LARGE = 4000  # training clouds, from which on ModelNet40's settings are the usual ones
NUM_POINTS, EMB_DIMS, BATCH = 256, 512, 16
CLOUDS = 50_000  # seen in a run
FEWEST, MOST = 40, 400  # epochs
PUBLISHED = tuple(known.folder for name, known in DATASETS.items() if name != "folder")


def own_folder(recipe: Recipe) -> Path | None:
    """Return the folder of a data set of one's own that the recipe names; None where it names another."""
    if recipe.dataset in DATASETS or recipe.dataset == GIVEN:
        folder = recipe.data_root if recipe.dataset == "folder" else None
    else:
        folder = FolderClouds.find(recipe.dataset)
    return None if folder is None or folder.resolve().name in PUBLISHED else folder


def suited(folder: Path) -> tuple[Recipe, str]:
    """Return the settings that a data set of one's own has where the user names none, and a line that says them.

    Raises InputError where it cannot be read.
    """
    train = read_split(folder, "train")
    recipe = replace(Recipe(), rotate=suited_rotation(train), num_points=min(Recipe.num_points, train.num_points))
    if len(train) < LARGE:
        batch = next((size for size in (BATCH, 8, 4, 2) if 4 * size <= len(train)), 1)
        recipe = replace(
            recipe,
            num_points=min(NUM_POINTS, train.num_points),
            emb_dims=EMB_DIMS,
            batch_size=batch,
            epochs=min(max(round(CLOUDS / len(train)), FEWEST), MOST),
            precision="auto",
            redraw=True,
        )
    recipe = replace(recipe, k=min(Recipe.k, recipe.num_points))
    names = ("num_points", "emb_dims", "batch_size", "epochs", "precision", "rotate")
    named = {name: getattr(recipe, name) or PRESETS[recipe.preset].epochs for name in names}
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in named.items())
    flags += " --redraw" * recipe.redraw
    about = HEADINGS[recipe.rotate].partition(":")[0]
    return recipe, f"usual for {len(train):,} training clouds, unless a flag says otherwise: {flags} ({about})"


def unseen(folder: Path, recipe: Recipe) -> list[str]:
    """Return a line that names what points of a prepared set carry and the recipe leaves out; none where it takes all.

    Raises InputError where `prepare.json` is damaged, or the recipe names what no point carries.
    """
    frame = read_frame(folder)
    seen = features_in(recipe.features)
    left = [name for name in frame.features if name not in seen] if frame else []
    return [f"stored and not seen by the network: {', '.join(left)} (--features)"] if left else []
