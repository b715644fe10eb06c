"""The command line as a user meets it: exit codes, one sentence on bad input, nothing half-written."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import nn

from dgcnn_ws.cli import main
from dgcnn_ws.cli.predict import list_files
from dgcnn_ws.datasets import FolderClouds, load_dataset
from dgcnn_ws.datasets.frame import Frame
from dgcnn_ws.engine.folder.checkpoint import load_checkpoint, restore_model, restore_temperature
from dgcnn_ws.errors import InputError

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("blank_pictures")

SMALL = ["--dataset", "modelnet10", "--num-points", "32", "--k", "5", "--emb-dims", "32", "--batch-size", "8"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    try:
        code = main.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # the argument parser's own
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def train(easy_root: Path, tmp_path: Path) -> list[object]:
    return ["train", *SMALL, "--data-root", easy_root, "--epochs", 1, "--out", tmp_path, "--name", "run"]


def test_train_then_evaluate(
    train: list[object], easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, *train)
    assert code == 0
    assert "best.pt on test: overall accuracy" in out and "of 11 clouds" in out
    results = json.loads((tmp_path / "run/results.json").read_text())
    scores, picture = tmp_path / "scores.json", tmp_path / "confusion.png"
    code, out, _ = run(
        capsys, "evaluate", tmp_path / "run/best.pt", "--batch-size", 3, "--json", scores, "--plot", picture
    )
    assert code == 0
    assert "11 of 11 clouds of the test split scored" in out
    written = json.loads(scores.read_text())
    assert {name: written[name] for name in ("confusion", "overall_accuracy", "num_clouds", "per_class")} == {
        name: results["best"][name] for name in ("confusion", "overall_accuracy", "num_clouds", "per_class")
    }
    assert picture.read_bytes().startswith(b"\x89PNG")
    for split, count in (("val", 3), ("train", 37)):
        code, out, _ = run(capsys, "evaluate", tmp_path / "run/last.pt", "--split", split, "--votes", 2)
        assert code == 0
        assert f"{count} of {count} clouds of the {split} split scored, 2 vote(s) each" in out
        _, streamed, _ = run(capsys, "evaluate", tmp_path / "run/last.pt", "--split", split, "--votes", 2, "--stream")
        assert streamed == out


def test_resume_keeps_the_runs_own_settings(
    train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, *train, "--seed", 3, "--batch-size", 9, "--micro-batch", 3)
    (tmp_path / "run/results.json").unlink()
    code, _, err = run(capsys, "train", "--out", tmp_path, "--name", "run", "--resume", "--lr", 0.5)
    assert code == 2 and "was started with --lr" in err
    # 3 does not divide the default batch of 32: it is the run's own batch that counts.
    code, _, err = run(capsys, "train", "--out", tmp_path, "--name", "run", "--resume", "--micro-batch", 3)
    assert code == 0, err
    code, _, err = run(capsys, "train", "--out", tmp_path, "--name", "run", "--resume")
    assert code == 2 and "is finished" in err


def test_compare_makes_a_table_and_pictures(
    easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["--norms", "bn,ws_gn", "--micro-batches", "1,8", "--seeds", 2, "--epochs", 1, "--jobs", 2]
    command = ["compare", *SMALL, *grid, "--data-root", easy_root, "--out", tmp_path]
    code, out, err = run(capsys, *command, "--search", "adam:1e-3,sgd:1e20", "--report", tmp_path / "a.html")
    assert code == 0, err
    assert "| `bn` | bn | 1 | cannot train: a BatchNorm head" in out
    assert "| `ws_gn` | est | adam | 0.001 | **" in out and "failed: the training loss became" in out
    study = json.loads((tmp_path / "study/study.json").read_text())
    assert [(row["norm"], row["micro_batches"], len(row["runs"])) for row in study["cells"]] == [
        ("bn", [1], 0), ("bn", [8], 2), ("ws_gn", [1, 8], 2),
    ]  # fmt: skip
    for row in study["cells"][1:]:
        values = [json.loads((Path(f) / "results.json").read_text())["best"]["overall_accuracy"] for f in row["runs"]]
        assert row["best_overall_accuracy"]["mean"] == pytest.approx(sum(values) / 2)
        assert row["best_overall_accuracy"]["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    trial = json.loads((tmp_path / "study/search/bn-bn-adam-0.001/results.json").read_text())
    assert trial["selected_on"] == "val" and {"best", "last"}.isdisjoint(trial)  # the test set was not read
    for picture in ("study.png", "cost.png"):
        assert (tmp_path / "study" / picture).read_bytes().startswith(b"\x89PNG")
    assert "data:image/png;base64," in (tmp_path / "a.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    assert run(capsys, *command)[0] == 0  # a second time: nothing is trained again
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    tables = {path: path.stat().st_mtime_ns for path in (tmp_path / "study").glob("study.*")}
    assert run(capsys, *command)[0] == 0  # a third time: nor is the table, which would say the same, written again
    assert tables == {path: path.stat().st_mtime_ns for path in (tmp_path / "study").glob("study.*")}
    found, labels = tmp_path / "found.json", tmp_path / "labels.csv"
    pairs = [{"test": "ply_data_test0.h5[0]", "train": "ply_data_train0.h5[0]"}]
    found.write_text(json.dumps({"classes": {"ball": {}, "pole": {}, "sheet": {}}, "near_duplicates": {"test": pairs}}))
    labels.write_text("name,label\n")
    code, out, _ = run(capsys, *command, "--twins", found, "--labels", labels)  # scored from what the folders keep
    assert code == 0 and "OA, without training shapes (1) | OA, by labels.csv |" in out
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    code, _, err = run(capsys, *command, "--twins", tmp_path / "none.json")
    assert code == 2 and "is no file" in err
    code, out, _ = run(capsys, *command, "--seeds", 3, "--no-train")
    assert code == 0 and out.count("| 2 (1 to go) |") == 3  # bn, the same by its own statistics, ws_gn
    code, out, _ = run(capsys, *command, "--norms", "bn,gn", "--no-train")
    assert code == 0 and "| `gn` | est | any of 1 to 8 (trained at 8) | not finished |" in out
    code, _, err = run(capsys, *command, "--search", "adam:1e-2", "--no-train")
    assert code == 2 and "2 of 2 trials of --search are to go" in err
    code, _, err = run(capsys, *command, "--name", "other", "--no-train")
    assert code == 2 and "no run of this study is finished" in err and not (tmp_path / "other").exists()
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("results.json")}
    code, _, err = run(capsys, *command, "--lr", 0.5)  # finished runs of other settings are not taken for these
    assert code == 2 and "was started with --lr 0.001, not 0.5" in err
    (tmp_path / "study/bn-bn-mb8-seed0/results.json").write_text('{"seconds"')
    code, _, err = run(capsys, *command)
    assert code == 2 and "is damaged" in err and err.count("\n") == 1


def test_compare_says_which_runs_failed(easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["--norms", "ws_gn", "--micro-batches", "8", "--seeds", 1, "--epochs", 1, "--lr", "1e20"]
    code, out, err = run(capsys, "compare", *SMALL, *grid, "--data-root", easy_root, "--out", tmp_path)
    assert code == 2
    assert "| `ws_gn` | est | 8 | failed: the training loss became" in out
    assert err.startswith("error: 1 of 1 runs failed") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fly"], "command 'fly' is unknown"),
        (["train", "--dataset", "modelnet40"], "modelnet40_ply_hdf5_2048"),
        (["train", "--device", "gpu"], "--device 'gpu' is unknown"),
        (["train", "--device", "cuda:99"], "CUDA"),
        (["train", "--precision", "16", "--device", "cpu"], "--precision 16 needs a CUDA device"),
        (["train", "--cuda-graph", "--device", "cpu"], "--cuda-graph needs a CUDA device"),
        (["train", "--num-points", "4000"], "4000"),
        (["train", "--resume"], "no run in"),
        (["evaluate", "nothing.pt"], "nothing.pt does not exist"),
        (["evaluate", "nothing.pt", "--votes", "0"], "--votes 0"),
        (["compare", "--norms", ","], "--norms ',' is an empty list"),
        (["compare", "--norms", "nope"], "norm 'nope' is unknown"),
        (["evaluate", "nothing.pt", "--plot", "a.xyz"], "--plot a.xyz cannot be drawn"),
        (["evaluate", "nothing.pt", "--json", "no/such/a.json"], "no/such is not a folder"),
        (["compare", "--micro-batches", "1,x"], "whole numbers"),
        (["compare", "--norms", "bn", "--micro-batches", "1"], "BatchNorm head cannot train"),
        (["compare", "--norm", "gn"], "Use --norms"),
        (["compare", "--devices", "2"], "compare trains each run in one process"),
        (["compare", "--sync-bn"], "compare trains each run in one process"),
        (["train", "--devices", "3"], "--batch-size 32 cannot be shared by 3 processes"),
        (["train", "--nodes", "2"], "--nodes 2 needs torchrun or srun"),
        (["compare", "--task", "segment"], "compare trains classifiers"),
        (["compare", "--seeds", "0"], "--seeds is 0"),
        (["compare", "--jobs", "0"], "--jobs is 0"),
        (["compare", "--search", "adam:fast"], "--search 'adam:fast' is no trial"),
        (["compare", "--search", "newton:1"], "--search 'newton:1' is no trial"),
        (["compare", "--report", "no/such/a.html"], "no/such is not a folder"),
        (["compare", "--dataset", "modelnet40", "--data-root", "nowhere"], "modelnet40_ply_hdf5_2048"),
        (["compare", "--micro-batch", "4"], "Use --micro-batches"),
        (["train", "--dataset", "no/such"], "or a folder that prepare wrote"),
        (["prepare", "no/such", "--out", "x"], "no/such is neither a folder nor a zip file"),
        (["predict", "nothing.pt", "a.off"], "nothing.pt does not exist"),
        (["predict", "nothing.pt", "a.off", "--top", "0"], "--top 0"),
        (["predict", "nothing.pt", "a.off", "--picture", "a.txt"], "--picture a.txt cannot be drawn"),
        (["import", "nothing.t7", "--out", "a.pt"], "nothing.t7 does not exist"),
        (["import", "nothing.t7", "--out", "a.pt", "--classes", "b"], "--classes b does not exist"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], message: str, easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [] if arguments[0] not in ("train", "compare") else ["--out", tmp_path]
    if "4000" in arguments or "--device" in arguments:
        places += ["--data-root", easy_root, "--dataset", "modelnet10"]
    elif arguments[0] == "train":
        places += ["--data-root", tmp_path]
    code, _, err = run(capsys, *arguments, *places)
    assert code == 2
    assert err.startswith("error: ") and message in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        (["train", "--norm", "layer"], ["ws_gn", "gn", "ws_bn", "bn", "ws_bcn"]),
        (["train", "--head-norm", "layer"], ["bn", "bn_whole", "gn", "ln", "est", "none"]),
        (["compare", "--precision", "8"], ["32", "bf16", "16", "auto"]),
        (["evaluate", "nothing.pt", "--split", "all"], ["test", "val", "train"]),
        (["prepare", ".", "--out", "x", "--up", "x"], ["z", "y"]),
        (["runs", "--sort", "colour"], ["name", "state", "age", "score", "test"]),
    ],
)
def test_words_are_checked_and_listed(
    arguments: list[str], choices: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2 and f"invalid choice '{arguments[-1]}' for argument '{arguments[-2]}'" in " ".join(err.split())
    assert all(f"'{choice}'" in err for choice in choices)
    code, out, _ = run(capsys, arguments[0], "--help")
    assert code == 0 and f"{arguments[-2]} {{{','.join(choices)}}}" in " ".join(out.split())


def test_help_leaves_out_what_says_nothing_and_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for command in main.COMMANDS:
        out = run(capsys, command, "--help")[1]
        assert "None" not in out and "(default: )" not in out
    flags = {word for word in run(capsys, "compare", "--help")[1].split() if word.startswith("--")}
    assert {"--norms", "--head-norms", "--micro-batches", "--lr"} <= flags
    assert flags.isdisjoint({"--norm", "--head-norm", "--micro-batch", "--task", "--devices", "--nodes"})


def test_a_package_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "dgcnn_ws.cli.runs", None)  # as Python has it of what cannot be imported
    code, _, err = run(capsys, "runs")
    assert code == 2 and "dgcnn_ws.cli.runs is not installed. In a checkout, run pip install" in err


def test_unknown_flags_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "train", "--colour", "red")
    assert code == 2 and "--colour" in err
    for command in main.COMMANDS:
        code, out, _ = run(capsys, command, "--help")
        assert code == 0 and f"usage: main.py {command}" in out and out.count("\n") > 10
    assert run(capsys)[0] == run(capsys, "--help")[0] == 0


def test_another_runs_classes(train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *train)
    other = tmp_path / "other/modelnet10_ply_hdf5_2048"
    other.mkdir(parents=True)
    source = Path(str(train[train.index("--data-root") + 1])) / other.name
    for file in source.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "shape_names.txt").write_text("sheet\npole\nball\n")
    code, _, err = run(capsys, "evaluate", tmp_path / "run/best.pt", "--data-root", tmp_path / "other")
    assert code == 2 and "other classes" in err


def test_an_output_folder_that_cannot_be_written(
    train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    train[train.index("--out") + 1] = tmp_path / "file"
    code, _, err = run(capsys, *train)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(train: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tmp_path.chmod(0o500)
    code, _, err = run(capsys, *train)
    tmp_path.chmod(0o700)
    assert code == 2 and "Permission denied" in err and err.count("\n") == 1


def test_a_full_disk_leaves_no_half_written_file(train: list[object], tmp_path: Path) -> None:
    # A limit on the size of files fails a write in the middle, as a full disk does.
    limited = "import resource, sys; from dgcnn_ws.cli.main import start; "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); sys.exit(start())"
    command = [sys.executable, "-c", limited, *map(str, train)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "error: " in done.stderr and "File too large" in done.stderr and "Traceback" not in done.stderr
    left = {path.name for path in (tmp_path / "run").iterdir() if not path.name.startswith("events")}
    assert left == {"claim", "claim.1", "config.json", "failure.json", "metrics.jsonl"}
    assert (tmp_path / "run/metrics.jsonl").read_text() == ""


@pytest.fixture
def own_shapes(tmp_path: Path) -> Path:
    """Two classes of ten clouds each, so different that any network tells them apart."""
    rng = np.random.default_rng(0)
    for class_name, stretch in (("pole", (0.05, 1, 0.05)), ("sheet", (1, 0.05, 1))):
        (tmp_path / "own" / class_name).mkdir(parents=True)
        for i in range(10):
            np.save(tmp_path / "own" / class_name / f"{i}.npy", rng.normal(size=(64, 3)) * stretch)
    return tmp_path / "own"


def test_own_shapes_from_files_to_predictions(
    own_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_shapes / "pole/broken.off").write_text("OFF")
    data = tmp_path / "data set"
    prepare = ["prepare", own_shapes, "--out", data, "--num-points", 48, "--up", "y", "--jobs", 1]
    code, out, err = run(capsys, *prepare, "--strict")
    assert code == 2 and "pole/broken.off" in err and not data.exists()
    code, out, err = run(capsys, *prepare)
    assert code == 3, err
    assert "skipped: pole/broken.off cannot be read" in out and "16 train and 4 test clouds of 48 points" in out

    small = ["--num-points", 32, "--k", 5, "--emb-dims", 32, "--groups", 16, "--batch-size", 7, "--lr", 3e-3]
    small += ["--dropout", 0.0, "--augment", "none"]
    train = ["train", "--dataset", data, *small, "--epochs", 6, "--out", tmp_path / "runs"]
    code, out, err = run(capsys, *train)
    assert code == 0, err
    folder = tmp_path / "runs/data set-dgcnn-ws_gn-mb7-seed0"
    assert json.loads((folder / "config.json").read_text())["dataset"] == "folder"
    (folder / "results.json").unlink()
    code, out, err = run(capsys, *train, "--resume")  # nothing is left to train: it only scores once more
    assert code == 0, err
    moved = data.rename(tmp_path / "moved")
    code, out, err = run(capsys, "evaluate", folder / "best.pt")
    assert code == 2 and "holds no data set" in err
    code, out, err = run(capsys, "evaluate", folder / "best.pt", "--data-root", moved)
    assert code == 0 and "4 of 4 clouds of the test split scored" in out

    np.save(tmp_path / "few.npy", np.eye(3))
    picture, answers = tmp_path / "wins.png", tmp_path / "answers.json"
    files = [own_shapes / "pole", own_shapes / "sheet/3.npy", tmp_path / "few.npy"]
    command = ["predict", folder / "best.pt", *files, "--up", "y", "--batch-size", 3]
    code, out, err = run(capsys, *command, "--json", answers, "--picture", picture)
    assert code == 3, err
    written = json.loads(answers.read_text())
    assert len(written["predictions"]) == 12 and len(written["skipped"]) == 1
    best = {answer["file"]: next(iter(answer["classes"])) for answer in written["predictions"]}
    assert best.pop(str(files[2])) in ("pole", "sheet"), "three points, repeated as prepare would"
    assert best == {str(f): f.parent.name for f in [*sorted((own_shapes / "pole").glob("*.npy")), files[1]]}
    for answer in written["predictions"]:
        assert sum(answer["classes"].values()) == pytest.approx(1, abs=1e-5)
    assert picture.read_bytes().startswith(b"\x89PNG")
    code, _, err = run(capsys, "predict", folder / "best.pt", own_shapes / "pole/broken.off")
    assert code == 2 and err.startswith("error: none of the files")


def test_predict_names_what_it_does_not_read_in_a_folder(tmp_path: Path) -> None:
    for name in ("a/1.xyz", "a/1.fbx", "2.off", "2.mtl", "README.txt", ".hidden.off"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    files, left_out = list_files((tmp_path, tmp_path / "2.mtl"))
    assert files == [tmp_path / "2.off", tmp_path / "a/1.xyz", tmp_path / "2.mtl"]
    assert [line["reason"] for line in left_out] == [f"{tmp_path / 'a/1.fbx'}: .fbx is not read: export it as .glb"]
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file"):
        list_files((empty,))


def test_a_cloud_is_predicted_as_it_was_trained(
    own_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The stored test clouds, written out as files in another pose and size, get the answers of `evaluate`."""
    run(capsys, "prepare", own_shapes, "--out", tmp_path / "set", "--num-points", 48, "--up", "y", "--jobs", 1)
    small = ["--num-points", 48, "--k", 5, "--emb-dims", 32, "--batch-size", 7, "--epochs", 1]
    run(capsys, "train", "--dataset", tmp_path / "set", *small, "--out", tmp_path, "--name", "run")
    test = FolderClouds(tmp_path / "set", "test", 48)
    (tmp_path / "files").mkdir()
    for i, points in enumerate(test.points.numpy()):
        np.savetxt(tmp_path / f"files/{i}.xyz", 1000 * points + 5000, fmt="%.6f")
    run(capsys, "predict", tmp_path / "run/best.pt", tmp_path / "files", "--up", "y", "--json", tmp_path / "a.json")
    model, _, names = restore_model(tmp_path / "run/best.pt")
    with torch.no_grad():
        logits = model.eval()(test.points.transpose(1, 2))
        expected = (logits / restore_temperature(tmp_path / "run/best.pt")).softmax(1)
    answers = json.loads((tmp_path / "a.json").read_text())["predictions"]
    found = torch.tensor([[answer["classes"][name] for name in names] for answer in answers])
    assert torch.allclose(found, expected, atol=1e-4)


def test_predict_repeats_what_prepare_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standing and lying rods differ by their axis alone: files with y up get evaluate's answers without a flag."""
    rng = np.random.default_rng(0)
    for class_name, axis in (("lying", 2), ("standing", 1)):
        for split, count in (("train", 14), ("test", 6)):
            (tmp_path / "files" / class_name / split).mkdir(parents=True)
            for i in range(count):
                extents = rng.uniform(0.8, 1.2, 3)
                extents[axis] *= 8
                mesh = trimesh.creation.box(extents=extents)
                mesh.export(tmp_path / f"files/{class_name}/{split}/{i}.{('off', 'obj', 'ply', 'stl')[i % 4]}")
    run(capsys, "prepare", tmp_path / "files", "--out", tmp_path / "set", "--num-points", 100, "--up", "y", "--jobs", 1)
    small = ["--num-points", 64, "--k", 5, "--emb-dims", 32, "--batch-size", 5, "--epochs", 6, "--augment", "none"]
    small += ["--groups", 16]
    run(capsys, "train", "--dataset", tmp_path / "set", *small, "--dropout", 0.0, "--out", tmp_path, "--name", "run")
    best = tmp_path / "run/best.pt"
    frame = load_checkpoint(best)["frame"]
    assert frame == asdict(Frame("y", 100, "unit_sphere", mirrored=False, fill="repeat", draw="contents", seed=0))

    run(capsys, "evaluate", best, "--json", tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["confusion"] == [[6, 0], [0, 6]]
    tests = [tmp_path / "files" / name / "test" for name in ("lying", "standing")]

    def predicted(checkpoint: Path, *flags: str) -> list[str]:
        code, _, err = run(capsys, "predict", checkpoint, *tests, *flags, "--json", tmp_path / "a.json")
        assert code == 0, err
        answers = json.loads((tmp_path / "a.json").read_text())["predictions"]
        return [f"{Path(answer['file']).parts[-3]} is {next(iter(answer['classes']))}" for answer in answers]

    right = ["lying is lying"] * 6 + ["standing is standing"] * 6
    wrong = ["lying is standing"] * 6 + ["standing is lying"] * 6
    assert predicted(best) == right == predicted(best, "--up", "y")
    assert predicted(best, "--up", "z") == wrong, "a flag wins"
    content = load_checkpoint(best)
    frame = content.pop("frame")
    for older in (content, content | {"frame": None}):
        torch.save(older, tmp_path / "older.pt")
        assert predicted(tmp_path / "older.pt") == wrong, "where nothing is known z is up, as before"
    torch.save(content | {"frame": frame | {"normalization": "box"}}, tmp_path / "foreign.pt")
    code, _, err = run(capsys, "predict", tmp_path / "foreign.pt", *tests)
    assert code == 2 and err.count("\n") == 1 and "should say normalization unit_sphere" in err


def test_a_folders_path_and_a_data_root_exclude_each_other(
    own_shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "set"
    run(capsys, "prepare", own_shapes, "--out", data, "--num-points", 48, "--up", "y", "--jobs", 1)
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ["train", "--dataset", data, "--out", tmp_path],
        ["compare", "--dataset", data, "--out", tmp_path],
        ["import", "a.t7", "--out", tmp_path / "a.pt", "--dataset", data],
        ["inspect", data],
    ):
        code, _, err = run(capsys, *command, "--data-root", tmp_path)
        assert code == 2 and err.count("\n") == 1
        assert f"--data-root {tmp_path} is not for a data set given by its path, {data}" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_import_then_evaluate_and_predict(
    public_dgcnn: Callable[..., nn.Module], easy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = public_dgcnn(emb_dims=32, k=5, num_classes=3).eval()
    state = {f"module.{name}": value for name, value in public.state_dict().items()}
    torch.save(state, tmp_path / "model.t7", _use_new_zipfile_serialization=False)  # as in 2019
    (tmp_path / "names.txt").write_text("ball\npole\nsheet\n")
    command = ["import", tmp_path / "model.t7", "--out", tmp_path / "model.pt", "--num-points", 48, "--k", 5]
    code, _, err = run(capsys, *command)
    assert code == 2 and "tells 3 classes apart, but ModelNet40 names 40" in err
    for names in ("ball\npole\nball\n", "ball\npole\na\x1b[31mb\n", "\n"):
        (tmp_path / "wrong.txt").write_text(names)
        code, _, err = run(capsys, *command, "--classes", tmp_path / "wrong.txt")
        assert code == 2 and err.count("\n") == 1 and "printable class names, one a line, none of them twice" in err
    command += ["--classes", tmp_path / "names.txt", "--dataset", "modelnet10", "--data-root", easy_root]
    code, out, err = run(capsys, *command)
    assert code == 0, err
    for there in (tmp_path / "model.pt", tmp_path / "model.t7", tmp_path):
        content = there.read_bytes() if there.is_file() else b""
        code, _, err = run(capsys, *command, "--out", there)
        assert code == 2 and err == f"error: {there} already exists. Choose another --out, or delete it first.\n"
        assert not there.is_file() or there.read_bytes() == content
    code, out, err = run(capsys, "evaluate", tmp_path / "model.pt", "--json", tmp_path / "scores.json")
    assert code == 0 and "ON THE TEST SET" in out and "11 of 11 clouds" in out
    test = load_dataset("modelnet10", easy_root, "test", 48)
    with torch.no_grad():
        right = (public(test.points.transpose(1, 2)).argmax(1) == test.labels).float().mean()
    assert json.loads((tmp_path / "scores.json").read_text())["overall_accuracy"] == pytest.approx(float(right))
    np.save(tmp_path / "cloud.npy", test.points[0])
    code, out, _ = run(capsys, "predict", tmp_path / "model.pt", tmp_path / "cloud.npy", "--up", "y")
    assert code == 0 and "cloud.npy" in out

    torch.save(state | {"module.conv9.weight": torch.zeros(1)}, tmp_path / "other.t7")
    code, _, err = run(capsys, *["import", tmp_path / "other.t7", "--out", tmp_path / "other.pt", *command[4:]])
    assert code == 2 and err.count("\n") == 1 and "'conv9.weight' is no name" in err
    fewer = {name: value for name, value in state.items() if name != "module.linear2.bias"}
    torch.save(fewer, tmp_path / "other.t7")
    code, _, err = run(capsys, *["import", tmp_path / "other.t7", "--out", tmp_path / "other.pt", *command[4:]])
    assert code == 2 and err.count("\n") == 1 and "lacks" in err
    assert not (tmp_path / "other.pt").exists()
