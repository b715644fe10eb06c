"""A finished network in a folder that others can open, and on the Hugging Face hub: extra `[hub]`.

The folder holds `model.safetensors`, `config.json` (settings, class names, frame, temperature, results) and a model
card with the run's own scores. It is written with safetensors, and sent and fetched with huggingface_hub.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from torch import nn

from dgcnn_ws.engine.folder.checkpoint import CONFIG, WEIGHTS
from dgcnn_ws.engine.recipe import network_head
from dgcnn_ws.errors import InputError
from dgcnn_ws.extras import need
from dgcnn_ws.files import replacing

CARD = "README.md"


class Hub:
    """Adds `save_pretrained`, `push_to_hub` and `from_pretrained` to a finished network."""

    about: dict[str, Any]
    network: nn.Module

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write weights, settings and a model card to a folder, which is made; a card that is there stays.

        Raises InputError where safetensors is not installed.
        """
        safetensors = need("safetensors.torch", "hub", "save_pretrained")
        folder = Path(save_directory)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        contents = {
            CONFIG: json.dumps(shareable(self.about), indent=1).encode() + b"\n",
            WEIGHTS: safetensors.save(weights, {"format": "pt"}),
        }
        if not (folder / CARD).exists():
            contents[CARD] = card(self.about, type(self).__name__).encode()
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with replacing(folder / name) as temporary:
                temporary.write_bytes(content)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        **kwargs: Any,
    ) -> str:
        """Send what `save_pretrained` writes to the hub, in one commit, and return its address.

        Args:
            repo_id: `user/name`; made where it is not there.
            private: whether it is made private. None: as its owner has it.
            token: of an account. None: the one that `hf auth login` keeps.
            branch: None: the main one.
            kwargs: `commit_message`, `create_pr`, `delete_patterns` ..., as huggingface_hub's `upload_folder` takes
                them.

        Raises InputError where huggingface_hub is not installed; its own exceptions where the hub refuses.
        """
        api = need("huggingface_hub", "hub", "push_to_hub").HfApi(token=token)
        repo_id = api.create_repo(repo_id=repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, revision=branch, **kwargs))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Return the network in a folder that `save_pretrained` wrote, or that of a name on the hub.

        Args:
            pretrained_model_name_or_path: the folder, or `user/name`.
            kwargs: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as huggingface_hub takes
                them.

        Raises InputError where there is none, it cannot be fetched, or it is damaged.
        """
        from dgcnn_ws.inference.load import load  # which makes what this file describes

        name = str(pretrained_model_name_or_path)
        model = load(name if Path(name).is_dir() else fetch(name, **kwargs))
        if not isinstance(model, cls):
            raise InputError(f"{name} holds a {type(model).__name__}, not a {cls.__name__}.")
        return model


def fetch(name: str, **kwargs: Any) -> Path:
    """Return the folder in which huggingface_hub keeps a network of the hub. Raises InputError where it cannot."""
    need("huggingface_hub", "hub", f"{name} is no folder here, and the hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return [Path(hf_hub_download(name, file, **kwargs)) for file in (CONFIG, WEIGHTS)][-1].parent
    except (OSError, ValueError, EntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{name} is no folder here, and cannot be fetched from the hub: {reason}") from error


def shareable(about: dict[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint says without where its data lay on this machine."""
    config = about["config"]
    return about | {
        "config": config | {name: Path(config[name]).name for name in ("data_root", "start") if name in config}
    }


def card(about: dict[str, Any], kind: str) -> str:
    """Return the text of a model card.

    Args:
        about: what a checkpoint says beside its weights.
        kind: the class that opens it.
    """
    config, names = about["config"], about["class_names"]
    data = Path(config["data_root"]).name if config["dataset"] == "folder" else config["dataset"]
    what = "names the parts of" if about.get("part_names") else f"tells {len(names)} classes apart in"
    settings = {name: config[name] for name in ("preset", "norm", "head_norm", "groups", "k", "num_points", "emb_dims")}
    settings["head_norm"] = network_head(settings["head_norm"])
    lines = [
        "---",
        "library_name: dgcnn_ws",
        "tags: [point-cloud, dgcnn, weight-standardization]",
        "---",
        "",
        f"# DGCNN, {config['norm']}, trained on {data}",
        "",
        f"A network that {what} point clouds: " + ", ".join(names) + ".",
        "",
        "```python",
        "from dgcnn_ws import " + kind,
        "",
        f'model = {kind}.from_pretrained("...")  # this folder or its name on the hub',
        'model.predict("chair.off")' if kind == "Classifier" else f'model.predict("mug.off", category="{names[0]}")',
        "```",
        "",
        *scores(about),
        "## How it was trained",
        "",
        "| setting | value |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in settings.items()),
        f"| epochs, optimizer, lr | {config['epochs']}, {config['optimizer']}, {config['lr']} |",
        f"| batch, micro-batch | {config['batch_size']}, {config['micro_batch']} |",
        f"| augmentation | {config['augment']} |",
        f"| seed | {config['seed']} |",
        "",
    ]
    return "\n".join(lines)


def scores(about: dict[str, Any]) -> list[str]:
    """Return the card's lines on how good the network is: what the run itself found on its test set."""
    found = about.get("results")
    if not found:
        why = "the checkpoint was taken out of its run's folder, or imported, or its classes were named anew"
        return [f"Its scores are not known: {why}.", ""]
    share = "{:.1%}".format
    chosen = "validation" if about["config"]["select"] == "val" else "the test set itself, as papers do"
    rows = [("overall accuracy", found["overall_accuracy"]), ("mean class accuracy", found["mean_class_accuracy"])]
    rows += [(f"{kind} mIoU", found[f"{kind}_miou"]) for kind in ("instance", "class") if f"{kind}_miou" in found]
    rows += [(name, value) for name, value in found["per_class"].items() if value is not None]
    return [
        f"## Scores on {found['num_clouds']} test clouds",
        "",
        f"The checkpoint was chosen on {chosen}.",
        "",
        "| | test |",
        "|---|---|",
        *(f"| {name} | {share(value)} |" for name, value in rows),
        "",
    ]
