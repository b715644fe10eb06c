"""A run's settings: what the command line asks for, the presets that fill the gaps, the schedule they imply.

The command line reads this file before it imports torch: what needs torch, or imports it, is imported where it is used.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from dgcnn_ws.errors import InputError

if TYPE_CHECKING:
    import torch

# What a setting can be, by its word; tests hold these together with the tables that say what the words stand for.
Task = Literal["classify", "segment"]
Dataset = Literal["shapes", "modelnet10", "modelnet40"]
PresetName = Literal["dgcnn", "paper"]
Norm = Literal["ws_gn", "gn", "ws_bn", "bn", "ws_bcn"]
HeadNorm = Literal["bn", "bn_whole", "gn", "ln", "est", "none"]
Optimizer = Literal["sgd", "adam", "adamw"]
Augment = Literal["dgcnn", "paper", "none"]
Rotate = Literal["none", "up", "any"]
Graph = Literal["coordinates", "all"]
ClassWeights = Literal["none", "balanced"]
Select = Literal["val", "test"]
Precision = Literal["32", "bf16", "16", "auto"]

# The learning rate that each takes where the user names none.
LEARNING_RATES: dict[str, float] = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}


GIVEN = "given"  # the data set of a run whose clouds a program gave (`dgcnn_ws.train`)


@dataclass(frozen=True)
class Recipe:
    """Settings of a training run. A field that is None takes its value from the preset (and the norm)."""

    task: Task = "classify"
    """What to learn: classify each cloud, or segment each point into parts (of --dataset shapes)."""
    dataset: Dataset | str = "shapes"
    """Data to train on: shapes (procedural, made on first use), modelnet10, modelnet40, or the path of a folder that
    `prepare` wrote."""
    data_root: Path = Path("data")
    """Folder that holds <dataset>_ply_hdf5_2048/. A --dataset that is a path is its own."""
    preset: PresetName = "dgcnn"
    """Network and recipe: dgcnn (today's) or paper (the Weight Standardization paper's, with T-Net)."""
    norm: Norm = "ws_gn"
    """Normalisation; ws: with weight standardization."""
    head_norm: HeadNorm | None = None
    """Normalisation of the fully connected head. bn sees the micro-batch; bn_whole (classifiers of --preset dgcnn) the
    whole batch, however small the micro-batch: where that is smaller, each cloud goes through the body twice. est,
    running estimates, needs no batch. Default: bn with bn and ws_bn, else gn (paper) or bn_whole (dgcnn); est in its
    place with a --batch-size below 32, --task segment, or --cuda-graph and a smaller micro-batch."""
    groups: int | None = None
    """Groups of every group norm, lowered to a divisor of its channels, in the head to four channels in each; as many
    as channels is instance norm, see docs/RESULTS.md. Default: 64 (dgcnn), 16 (paper)."""
    batch_size: int = 32
    """Clouds in one optimizer step, of all processes together."""
    micro_batch: int | None = None
    """Clouds in one forward pass: what BatchNorm in the body sees. Gradients accumulate to the batch. Default: a
    process's share of the batch."""
    epochs: int | None = None
    """Passes over the training clouds. Default: 250."""
    num_points: int = 1024
    """Points of a cloud, the first of the 2,048 stored."""
    features: str = ""
    """What the network sees of a point beside its place, between commas, of what prepare --features stored: normals,
    colour, intensity."""
    graph: Graph = "coordinates"
    """What the first layer's neighbours are near in, of points with --features: their coordinates, or all channels."""
    k: int = 20
    """Neighbours of a point, itself included."""
    emb_dims: int = 1024
    """Channels before pooling."""
    dropout: float = 0.5
    """Dropout probability in the head."""
    optimizer: Optimizer | None = None
    """Optimizer; sgd with momentum 0.9. Default: adam, the best for every norm in docs/RESULTS.md."""
    lr: float | None = None
    """Peak learning rate. Default: 1e-3 for adam and adamw, 0.1 for sgd."""
    weight_decay: float | None = None
    """Weight decay. Default: 1e-4 (dgcnn), 0 (paper)."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly from 0."""
    label_smoothing: float = 0.2
    """Label smoothing of the training loss."""
    average_weights: float = 0.0
    """Score and save an average of the weights over about so many last epochs, for example 2. 0: the weights."""
    augment: Augment | None = None
    """Augmentation, drawn anew for each cloud and step. dgcnn: every axis scaled by 2/3 to 3/2, and a shift. paper: a
    turn about the up axis, jitter, one scale of 0.8 to 1.25, small tilts, and a shift. Default: the preset's."""
    rotate: Rotate = "none"
    """What is not known of how shapes stand, turned at random before that: none (headings are those of the files, as
    ModelNet's mostly agree) | up (which way they face) | any (which side is up, too). Of a set of your own: measured,
    by whether the shapes of a class agree."""
    redraw: bool = False
    """At each step show the network other points of a cloud's stored ones, and not always the first: more to learn from
    where shapes are few. Scores are of the first."""
    class_weights: ClassWeights = "none"
    """balanced: each class counts alike in the loss, however few clouds it has, and best.pt is chosen by mean class
    accuracy; for sets of 150 clouds of one class and 6 of another."""
    seed: int = 0
    """Seed of initial weights, order, augmentation and dropout. The validation split does not depend on it."""
    select: Select = "val"
    """Which clouds choose best.pt: val (10 % of train, stratified) or test (trains on all of train; only to compare
    with papers that do so, marked in every output)."""
    device: str = "auto"
    """Where to compute: auto | cpu | cuda | cuda:N."""
    precision: Precision = "32"
    """Arithmetic; 16 on CUDA only; auto: bf16 where the processor or card has instructions for it, else 32, and the
    run's settings say which. Statistics and sums stay float32."""
    cuda_graph: bool = False
    """Record a micro-batch's passes as a CUDA graph and replay them: faster where micro-batches are small. It cannot
    record bn_whole there, so the default head is another: see --head-norm."""
    deterministic: bool = False
    """On CUDA, take only algorithms that give the same bits at each run, slower ones where need be. The CPU's do."""
    stream: bool = False
    """Read clouds from the files as they are used: for data sets that memory does not hold. The order and the
    results are those of clouds in memory."""
    stream_buffer: int = 256
    """Memory for the clouds that --stream reads ahead, in MB."""
    devices: int | None = None
    """Processes on each machine: on CUDA a GPU each, on the CPU a share of the threads each. Default: what torchrun or
    srun started, else 1."""
    nodes: int | None = None
    """Machines. Default: what torchrun or srun started, else 1."""
    sync_bn: bool = False
    """Let batch norms see the micro-batches of all processes at once."""
    start: str = ""
    """Checkpoint, run or saved folder to go on from (--from): its network and weights, with a new last layer where the
    classes differ; its data too where no other is named."""
    freeze: bool = False
    """Train the head alone: what --from brings before it stays as it is, statistics too."""

    @property
    def processes(self) -> int:
        """Processes that train together, each on its share of every batch."""
        from dgcnn_ws.engine.parallel.processes import started

        devices, nodes = started() or (1, 1)
        return (self.devices or devices) * (self.nodes or nodes)


# What may differ between a run and its resumption: where things are, not what is computed.
PLACES = (
    "data_root",
    "device",
    "cuda_graph",
    "deterministic",
    "stream",
    "stream_buffer",
    "devices",
    "nodes",
)


@dataclass(frozen=True)
class Preset:
    """What a preset fills in."""

    groups: int
    epochs: int
    weight_decay: float
    augment: str
    optimizer: str
    group_norm_head: HeadNorm  # the head beside norms that do not need the batch, see `default_head`
    learning_rate: Callable[[float, int], float]


def cosine(progress: float, samples: int) -> float:
    """Cosine from 1 to 1/100 over the run."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2


def staircase(progress: float, samples: int) -> float:
    """× 0.7 every 200,000 samples, not below 1/100: the paper's decay."""
    return max(0.7 ** (samples // 200_000), 0.01)


PRESETS = {
    "dgcnn": Preset(64, 250, 1e-4, "dgcnn", "adam", "bn_whole", cosine),
    "paper": Preset(16, 250, 0.0, "paper", "adam", "gn", staircase),
}


def learning_rate(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of optimizer step `step` (from 0): a pure function of progress."""
    assert recipe.epochs is not None and recipe.lr is not None
    warmup = min(1.0, (step + 1) / max(recipe.warmup_epochs * steps_per_epoch, 1))
    shape = PRESETS[recipe.preset].learning_rate
    return recipe.lr * warmup * shape(step / (recipe.epochs * steps_per_epoch), step * recipe.batch_size)


def _one_of(flag: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise InputError(f"{flag} {value!r} is unknown. Choose one of {', '.join(choices)}.")


def _at_least(flag: str, value: float, least: float) -> None:
    if not least <= value <= sys.float_info.max:  # integers go on beyond that, where `isfinite` overflows
        raise InputError(f"{flag} is {value}, but must be at least {least}.")


def name_folder(recipe: Recipe) -> Recipe:
    """Return the recipe with a folder's path given as data set taken apart: data set `folder`, data root its path."""
    from dgcnn_ws.datasets import DATASETS, FolderClouds

    if recipe.dataset in (*DATASETS, GIVEN):
        return recipe
    folder = FolderClouds.find(recipe.dataset)
    if folder is None:
        known = ", ".join(name for name in DATASETS if name != "folder")
        raise InputError(
            f"--dataset {recipe.dataset!r} is unknown. Choose one of {known}, or a folder that prepare wrote."
        )
    return replace(recipe, dataset="folder", data_root=folder)


def check_data_root(dataset: str, data_root: Path) -> None:
    """Raise InputError where a data root is named beside a data set that is a folder's path, so would go unread."""
    from dgcnn_ws.datasets import DATASETS, FolderClouds

    if dataset not in (*DATASETS, GIVEN) and FolderClouds.find(dataset) and data_root != Recipe.data_root:
        raise InputError(f"--data-root {data_root} is not for a data set given by its path, {dataset}: leave one out.")


def dataset_name(recipe: Recipe) -> str:
    """Return what to call the recipe's data: its name, or its folder's."""
    return recipe.data_root.resolve().name if recipe.dataset == "folder" else recipe.dataset


def run_name(recipe: Recipe) -> str:
    """Return what to call a run of this recipe."""
    micro_batch = recipe.micro_batch or recipe.batch_size  # whatever the processes: a run may go on in others
    recipe = name_folder(recipe)
    network = recipe.task if recipe.task == "segment" else recipe.preset
    goes_on = "-fine-tuned" if recipe.start else ""
    return f"{dataset_name(recipe)}-{network}-{recipe.norm}-mb{micro_batch}-seed{recipe.seed}{goes_on}"


def complete(recipe: Recipe) -> Recipe:
    """Return the recipe with every gap filled in from its preset and norm. Raises InputError for a bad value."""
    from dgcnn_ws.datasets.frame import features_in
    from dgcnn_ws.engine.parallel.processes import started

    recipe = name_folder(recipe)
    _check_words(recipe)
    recipe = replace(recipe, features=",".join(features_in(recipe.features)))
    preset = PRESETS[recipe.preset]
    optimizer = recipe.optimizer or preset.optimizer
    devices, nodes = started() or (1, 1)
    defaults: dict[str, Any] = {
        "head_norm": default_head(recipe),
        "groups": preset.groups,
        "micro_batch": max(1, recipe.batch_size // max(1, recipe.processes)),
        "devices": devices,
        "nodes": nodes,
        "epochs": preset.epochs,
        "optimizer": optimizer,
        "lr": LEARNING_RATES[optimizer],
        "weight_decay": preset.weight_decay,
        "augment": preset.augment,
    }
    recipe = replace(recipe, **{name: value for name, value in defaults.items() if getattr(recipe, name) is None})
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=_quickest_precision(recipe.device))
    _check(recipe)
    return recipe


LEAST_WHOLE = 32  # clouds in a step; with 16 it gained nothing over estimates (docs/RESULTS.md)


def default_head(recipe: Recipe) -> HeadNorm:
    """Return the head's norm where a recipe names none: the most accurate one that it can have (docs/RESULTS.md)."""
    from dgcnn_ws.nn.norm import norm_kind

    if norm_kind(recipe.norm).uses_batch_statistics:
        return "bn"
    head = PRESETS[recipe.preset].group_norm_head
    two_passes = (recipe.micro_batch or recipe.batch_size) < recipe.batch_size
    whole = recipe.task == "classify" and recipe.batch_size >= LEAST_WHOLE and not (recipe.cuda_graph and two_passes)
    return "est" if head == "bn_whole" and not whole else head


def _quickest_precision(device: str) -> Precision:
    from dgcnn_ws.engine.machine.devices import pick_device
    from dgcnn_ws.ops.product import multiplies_bfloat16

    return "bf16" if multiplies_bfloat16(pick_device(device).type) else "32"


# The settings that are words.
WORDS: dict[str, Any] = {
    "task": Task,
    "preset": PresetName,
    "norm": Norm,
    "head_norm": HeadNorm,
    "optimizer": Optimizer,
    "augment": Augment,
    "rotate": Rotate,
    "class_weights": ClassWeights,
    "select": Select,
    "graph": Graph,
    "precision": Precision,
}


def _check_words(recipe: Recipe) -> None:
    for name, words in WORDS.items():
        if (word := getattr(recipe, name)) is not None:  # the preset's, in a recipe that is not complete
            _one_of(f"--{name.replace('_', '-')}", word, get_args(words))


def _check(recipe: Recipe) -> None:
    from dgcnn_ws.datasets import DATASETS, PART_DATASETS
    from dgcnn_ws.datasets.frame import features_in

    assert recipe.head_norm and recipe.optimizer and recipe.augment
    assert recipe.groups and recipe.micro_batch is not None and recipe.epochs is not None
    assert recipe.lr is not None and recipe.weight_decay is not None
    _check_words(recipe)
    _one_of("--dataset", recipe.dataset, (*DATASETS, GIVEN))
    features_in(recipe.features)
    if recipe.task == "segment":
        if recipe.preset != "dgcnn":
            raise InputError(f"--task segment has no preset {recipe.preset}. Use --preset dgcnn.")
        if recipe.dataset not in PART_DATASETS:
            raise InputError(
                f"--task segment needs a data set whose points are labelled, and {recipe.dataset} is none. "
                f"Choose one of {', '.join(PART_DATASETS)}."
            )
        if recipe.stream:
            raise InputError("--task segment has no --stream: its data lie in memory. Leave it out.")
        if recipe.redraw:
            raise InputError("--redraw is for clouds with one label, and --task segment has one a point. Leave it out.")
        if recipe.features:
            raise InputError("--task segment has no --features: its data's points have places alone. Leave them out.")
        if recipe.class_weights != "none":
            raise InputError("--class-weights are of classes of clouds, and --task segment names parts. Leave it out.")
    counts = ("groups", "batch_size", "micro_batch", "epochs", "num_points", "k", "emb_dims")
    for name in (*counts, "stream_buffer", "devices", "nodes"):
        _at_least(f"--{name.replace('_', '-')}", getattr(recipe, name), 1)
    for name in ("lr", "weight_decay", "warmup_epochs", "average_weights", "dropout", "label_smoothing", "seed"):
        _at_least(f"--{name.replace('_', '-')}", getattr(recipe, name), 0)
    if recipe.seed >= 2**63:
        raise InputError(f"--seed {recipe.seed} is too large: torch's generators take 63 bits.")
    if recipe.dropout >= 1 or recipe.label_smoothing > 1:
        raise InputError(
            f"--dropout {recipe.dropout} and --label-smoothing {recipe.label_smoothing} are probabilities: "
            "stay below 1."
        )
    if recipe.k > recipe.num_points:
        raise InputError(
            f"k={recipe.k} neighbours need at least {recipe.k} points; these clouds have {recipe.num_points}. "
            "Lower --k or raise --num-points."
        )
    if recipe.freeze and not recipe.start:
        raise InputError("--freeze keeps what --from brings, and there is none. Name a checkpoint with --from.")
    _check_shares(recipe)
    if recipe.head_norm == "bn_whole":
        _check_whole_head(recipe)


def _check_shares(recipe: Recipe) -> None:
    """Check what each process, and each forward pass, has of a batch."""
    from dgcnn_ws.nn.norm import NORMS

    assert recipe.micro_batch is not None
    whole = f"--batch-size {recipe.batch_size}"
    if recipe.processes > 1:
        if recipe.batch_size % recipe.processes:
            raise InputError(f"{whole} cannot be shared by {recipe.processes} processes. Choose one that can.")
        if recipe.cuda_graph:
            raise InputError(f"--cuda-graph records one process's work, not that of {recipe.processes}. Leave it out.")
        whole += f", shared by {recipe.processes} processes,"
    share = recipe.batch_size // recipe.processes
    pooled = NORMS[recipe.norm].uses_batch_statistics or recipe.head_norm == "bn"
    # Where no norm sees the micro-batch, a smaller share than it is a smaller micro-batch.
    if share % (recipe.micro_batch if pooled else min(recipe.micro_batch, share)):
        raise InputError(
            f"{whole} is not a multiple of --micro-batch {recipe.micro_batch}. "
            "Choose a micro-batch that divides the batch."
        )
    if recipe.sync_bn and not pooled:
        raise InputError(
            f"--sync-bn is for batch norms, and --norm {recipe.norm} with --head-norm {recipe.head_norm} has none "
            "that needs it. Leave it out."
        )
    if recipe.head_norm == "bn" and recipe.micro_batch * (recipe.processes if recipe.sync_bn else 1) == 1:
        raise InputError(
            "a BatchNorm head cannot train at --micro-batch 1: of each channel it sees one value, whose variance "
            "is zero. Use --head-norm est (or, with --preset dgcnn, bn_whole), --norm ws_gn, or a micro-batch of 2 or "
            "more."
        )


def _check_whole_head(recipe: Recipe) -> None:
    """Check what a head asks for that sees the optimizer's batch whole."""
    what = "--head-norm bn_whole"
    if recipe.task != "classify" or recipe.preset != "dgcnn":
        raise InputError(f"{what} is for classifiers of --preset dgcnn, whose head sees one vector a cloud.")
    if recipe.batch_size == 1:
        raise InputError(f"{what} needs a --batch-size of 2 or more, not 1: of one value the variance is zero.")
    assert recipe.micro_batch is not None
    if recipe.cuda_graph and recipe.micro_batch < recipe.batch_size:
        raise InputError(
            f"{what} takes its batch in two passes, which --cuda-graph does not record. Leave that out, or take "
            "another --head-norm."
        )


def as_config(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON-ready values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(recipe).items()}


def unusual_settings(recipe: Recipe) -> dict[str, Any]:
    """Return what a completed recipe does not take from its preset, norm and optimizer, as `as_config` has it."""
    usual = complete(Recipe(preset=recipe.preset, norm=recipe.norm, optimizer=recipe.optimizer, devices=1, nodes=1))
    expected = as_config(usual) | {"preset": Recipe.preset, "optimizer": PRESETS[recipe.preset].optimizer}
    expected["head_norm"] = default_head(recipe)
    return {name: value for name, value in as_config(recipe).items() if value != expected[name]}


def other_setting(stored: Recipe, given: Recipe) -> str | None:
    """Return the first setting, beside places, in which two recipes differ, as `--lr 0.1, not 0.2`."""
    one, other = as_config(stored), as_config(given)
    for name in other:
        if name not in PLACES and one[name] != other[name]:
            return f"--{name.replace('_', '-')} {one[name]}, not {other[name]}"
    return None


def from_config(config: Any, source: Path) -> Recipe:
    """Return the recipe that `as_config` wrote and `source` held; nothing about `config` is trusted.

    Raises InputError, which names `source`, where a setting is missing, of another type or out of range.
    """
    values: dict[str, Any] = {}
    if isinstance(config, dict):
        config = BEFORE | config
    for name, example in _example().items():
        if not isinstance(config, dict) or name not in config:
            raise InputError(f"the settings in {source} lack {name!r}: they are not from this program, or too old.")
        value, expected = config[name], type(example)
        if expected is float and type(value) is int and abs(value) <= sys.float_info.max:
            value = float(value)
        if type(value) is not expected:
            raise InputError(f"the setting {name!r} in {source} is {value!r}, not of type {expected.__name__}.")
        values[name] = Path(value) if name == "data_root" else value
    recipe = Recipe(**values)
    try:
        _check(recipe)
    except InputError as error:
        raise InputError(f"a setting in {source} is wrong: {error}") from error
    return recipe


# Settings that older runs do not name, and which then had these values.
BEFORE = {"task": "classify", "devices": 1, "nodes": 1, "sync_bn": False, "cuda_graph": False}
BEFORE |= {"deterministic": False, "stream": False, "stream_buffer": 256}
BEFORE |= {"average_weights": 0.0, "start": "", "freeze": False, "rotate": "none", "redraw": False}
BEFORE |= {"class_weights": "none"}
BEFORE |= {"features": "", "graph": "coordinates"}


@cache
def _example() -> dict[str, Any]:
    return as_config(complete(Recipe(devices=1, nodes=1)))


def network_head(head_norm: HeadNorm | None) -> HeadNorm | None:
    """Return the network's word for a recipe's head: `bn` and `bn_whole` differ in how they are trained alone."""
    return "bn" if head_norm == "bn_whole" else head_norm


def build_model(recipe: Recipe, num_classes: int, num_parts: int = 0) -> "torch.nn.Module":
    """Return the recipe's network, its weights drawn from torch's global generator.

    Args:
        num_classes: classes to tell apart; where parts are, the categories of clouds that are an input.
        num_parts: parts to tell apart, for segmentation.
    """
    from dgcnn_ws.datasets.frame import features_in, width_of
    from dgcnn_ws.models import MODELS, DGCNNSeg

    assert recipe.groups is not None
    head_norm = network_head(recipe.head_norm)
    if recipe.task == "segment":
        return DGCNNSeg(
            num_parts,
            recipe.k,
            recipe.norm,
            head_norm,
            num_categories=num_classes,
            emb_dims=recipe.emb_dims,
            dropout=recipe.dropout,
            groups=recipe.groups,
        )
    return MODELS[recipe.preset](
        num_classes,
        recipe.k,
        recipe.norm,
        head_norm,
        in_channels=3 + width_of(features_in(recipe.features)),
        emb_dims=recipe.emb_dims,
        dropout=recipe.dropout,
        groups=recipe.groups,
        graph=recipe.graph,
    )


def build_optimizer(recipe: Recipe, model: "torch.nn.Module") -> "torch.optim.Optimizer":
    """Return the recipe's optimizer, in torch's fused form."""
    import torch

    assert recipe.optimizer is not None
    kinds: dict[str, Callable[..., torch.optim.Optimizer]]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    kind = kinds[recipe.optimizer]
    extra: dict[str, float] = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return kind(learned, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True, **extra)
