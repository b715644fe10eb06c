"""What TensorBoard reads back from a run's events."""

import errno
import io
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from dgcnn_ws.engine.board import Board, first_of_each, open_board
from dgcnn_ws.engine.recipe import Recipe, complete
from dgcnn_ws.engine.state import State
from dgcnn_ws.engine.stopping import Interrupted
from dgcnn_ws.engine.training import Run


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def picture(event: object) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))  # type: ignore[attr-defined]


@pytest.mark.parametrize("killed_in", [1, 2])
def test_a_runs_scores_confusion_and_samples(
    easy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: int
) -> None:
    small = {"num_points": 32, "k": 5, "emb_dims": 32, "batch_size": 8, "epochs": 3}
    recipe = complete(Recipe(dataset="modelnet10", data_root=easy_root, **small))  # type: ignore[arg-type]
    run = Run(recipe, tmp_path, quiet=True)
    save = run.folder.save

    def save_and_stop(state: State) -> None:
        if run.epoch == killed_in:  # as a kill after the epoch's line and before its checkpoint
            raise Interrupted("killed", 9)
        save(state)

    monkeypatch.setattr(run.folder, "save", save_and_stop)
    with pytest.raises(Interrupted):
        run.train()
    for file in tmp_path.glob("events.*"):  # within a second the names of one process's files may be in any order
        file.rename(file.with_name("events.out.tfevents.0.first"))
    Run(recipe, tmp_path, resume=True, quiet=True).train()
    events = read(tmp_path)
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2, 3]  # each once
    assert {"loss", "overall_accuracy", "lr"} <= set(events.Tags()["scalars"])
    drawn = [event.step for event in events.Images("confusion")]
    assert drawn[0] == 1 and drawn[-1] == 3 and len(drawn) == len(set(drawn))
    (samples,) = events.Images("samples")
    assert samples.step == 0 and (picture(samples) < 128).any()


def test_a_full_disk_is_one_error_that_names_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(self: RecordWriter, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RecordWriter, "write", write)
    hook = threading.excepthook
    with pytest.raises(OSError, match="No space left") as full, open_board(tmp_path, 0) as board:
        board.add_metrics({"epoch": 1, "loss": 0.5})
        board.flush()
    assert full.value.filename == str(tmp_path)
    assert capsys.readouterr().err == "" and threading.excepthook is hook


def test_pictures_show_what_they_should(tmp_path: Path) -> None:
    points = torch.randn(4, 64, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([1, 1, 0, 1])
    with Board(tmp_path, 0) as board:
        board.add_samples(points, points * 2, labels, ["$a", "b"])
        board.add_confusion([[3, 0], [0, 5]], ["$a", "b"], "clouds", 1)
        board.add_confusion(torch.eye(40, dtype=torch.int64).tolist(), [str(i) for i in range(40)], "clouds", 2)
    events = read(tmp_path)
    image = picture(events.Images("samples")[0]).astype(int)
    ink = (image.max(2) - image.min(2)) > 40  # coloured: points
    upper, lower = ink[: len(ink) // 2].sum(), ink[len(ink) // 2 :].sum()
    assert upper > 0 and lower > 0
    height = [np.ptp(np.flatnonzero(half.any(1))) for half in (ink[: len(ink) // 2], ink[len(ink) // 2 :])]
    assert height[1] > 1.5 * height[0]  # the augmented clouds are twice as large
    assert len(events.Images("confusion")) == 2


def test_the_first_of_every_class_comes_first() -> None:
    assert first_of_each([2, 2, 0, 2, 1, 0]) == [0, 2, 4, 1, 3, 5]
