"""A network saved for others: from a folder, without a network, and by way of a hub on this machine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dgcnn_ws.cli import main
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.finished import Classifier, Segmenter
from dgcnn_ws.inference.load import load

pytest.importorskip("huggingface_hub")
pytest.importorskip("safetensors")

ROOT = Path(__file__).parents[2]
CLOUD = np.random.default_rng(0).normal(size=(60, 3))


def test_a_folder_and_back(run: Path, tmp_path: Path) -> None:
    model, folder = load(run), tmp_path / "saved"
    model.save_pretrained(folder)
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    for again in (Classifier.from_pretrained(folder), Classifier.from_pretrained(str(folder)), load(folder)):
        assert again.class_names == model.class_names and again.frame == model.frame
        assert again.temperature == 0.5 and not again.training
        x = torch.randn(2, 3, 24)
        assert torch.equal(again(x), model(x))
        assert again.predict(CLOUD).probabilities == model.predict(CLOUD).probabilities
    again.save_pretrained(tmp_path / "twice")
    for name in ("README.md", "config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "twice" / name).read_bytes()


def test_the_card_has_the_runs_own_table(run: Path, tmp_path: Path) -> None:
    load(run).save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved/README.md").read_text()
    for line in (
        "library_name: dgcnn_ws", "# DGCNN, ws_gn, trained on shapes", "## Scores on 40 test clouds",
        "The checkpoint was chosen on validation.", "| overall accuracy | 90.0% |", "| mean class accuracy | 87.5% |",
        "| ball | 100.0% |", "| pole | 75.0% |", "| groups | 16 |", "| k | 5 |",
    ):  # fmt: skip
        assert f"\n{line}\n" in card
    assert "sheet |" not in card  # a class without test clouds has no score


def test_places_on_this_machine_stay_on_it(run: Path, tmp_path: Path) -> None:
    load(run).save_pretrained(tmp_path / "saved")
    for path in (tmp_path / "saved").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes() and b"secret" not in path.read_bytes()


def test_without_results_the_card_says_so(run: Path, tmp_path: Path) -> None:
    (run / "results.json").unlink()
    load(run).save_pretrained(tmp_path / "saved")
    assert "Its scores are not known" in (tmp_path / "saved/README.md").read_text()


def test_a_segmentation_too(segmentation: Path, tmp_path: Path) -> None:
    model = load(segmentation)
    model.save_pretrained(tmp_path / "saved")
    again = Segmenter.from_pretrained(tmp_path / "saved")
    assert again.part_names == model.part_names
    assert np.array_equal(again.predict(CLOUD, "mug").parts, model.predict(CLOUD, "mug").parts)
    with pytest.raises(InputError, match="holds a Segmenter, not a Classifier"):
        Classifier.from_pretrained(tmp_path / "saved")


def test_commands_take_the_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(run).save_pretrained(tmp_path / "saved")
    np.save(tmp_path / "cloud.npy", CLOUD)
    outputs = []
    for place in (tmp_path / "saved", run / "best.pt"):
        assert main.main(["predict", str(place), str(tmp_path / "cloud.npy")]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_damaged_folders(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    load(run).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    for content, message in (
        ("{", "not valid JSON"),
        ("[]", "not a checkpoint"),
        ('{"config": 1}', "not a checkpoint"),
    ):
        (folder / "config.json").write_text(content)
        with pytest.raises(InputError, match=message):
            Classifier.from_pretrained(folder)
    config["config"]["groups"] = 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="groups 16, and this one has 64"):
        Classifier.from_pretrained(folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match=r"is no \.safetensors file, or damaged"):
        Classifier.from_pretrained(folder)


def test_sent_to_a_hub_and_fetched_from_it(run: Path, tmp_path: Path, hub: Any) -> None:
    program = """
import sys, numpy as np
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.finished import Classifier
from dgcnn_ws.inference.load import load
model = load(sys.argv[1])
print(model.push_to_hub("someone/shapes", token="hf_none"))
again = Classifier.from_pretrained("someone/shapes")
cloud = np.random.default_rng(0).normal(size=(60, 3))
assert again.predict(cloud).probabilities == model.predict(cloud).probabilities
Classifier.from_pretrained("someone/shapes", local_files_only=True)
try:
    Classifier.from_pretrained("someone/nothing")
except InputError as error:
    print(error)
"""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    environment |= {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", program, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert set(hub.files["someone/shapes"]) - {".gitattributes"} == {"README.md", "config.json", "model.safetensors"}
    link, refusal = done.stdout.splitlines()
    assert link.startswith(f"{hub.url}/someone/shapes")
    assert refusal.startswith("someone/nothing is no folder here, and cannot be fetched from the hub:")


def test_without_the_extra(run: Path, tmp_path: Path) -> None:
    program = """
import sys
sys.modules.update(dict.fromkeys(("huggingface_hub", "safetensors")))
from dgcnn_ws.errors import InputError
from dgcnn_ws.inference.load import load
from dgcnn_ws.inference.finished import Classifier
model = load(sys.argv[1])
for call in (model.save_pretrained, model.push_to_hub, Classifier.from_pretrained):
    try:
        call("a/b")
    except InputError as error:
        print(error)
"""
    command = [sys.executable, "-c", program, str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pip install 'dgcnn_ws[hub]'") == 3
    assert [line.partition(":")[0] for line in done.stdout.splitlines()] == [
        "save_pretrained needs safetensors",
        "push_to_hub needs huggingface_hub",
        "a/b is no folder here, and the hub needs huggingface_hub",
    ]
