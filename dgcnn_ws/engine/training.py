"""Training: one visible loop.

Everything random is a pure function of the seed and the step, so a run that stops anywhere goes on from its last
checkpoint as if it had never stopped.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from dgcnn_ws.datasets import PartClouds
from dgcnn_ws.datasets.augment import AUGMENTATIONS
from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.engine.board import Board, open_board
from dgcnn_ws.engine.checkpoint import restore_model, save_checkpoint, write_json, write_lines
from dgcnn_ws.engine.cuda_graph import Replay
from dgcnn_ws.engine.devices import (
    memory_bytes,
    peak_memory_bytes,
    pick_device,
    reset_peak_memory,
    use_deterministic_algorithms,
)
from dgcnn_ws.engine.evaluation import evaluate_by_batch_statistics, uses_batch_statistics
from dgcnn_ws.engine.fine_tuning import freeze_body, take_over, train_mode
from dgcnn_ws.engine.launch import launch
from dgcnn_ws.engine.recipe import (
    PRECISIONS,
    Recipe,
    as_config,
    build_model,
    build_optimizer,
    learning_rate,
)
from dgcnn_ws.engine.run_folder import Progress, check_data, check_start, epoch_of, make_folder, restore
from dgcnn_ws.engine.stopping import Interrupted, stop_requests
from dgcnn_ws.engine.task import TASKS
from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.batch_norm import synchronize_batch_norms
from dgcnn_ws.nn.norm import one_update
from dgcnn_ws.pictures import plots

EVAL_BATCH = 16
AUGMENTATION, DROPOUT = 1, 2  # streams of random numbers; each process's dropout has its own, from 2 on


class Autocast(MixedPrecision):
    """Fabric's autocast without its rounding of the input: rounded coordinates have other neighbours."""

    def convert_input(self, data: Any) -> Any:
        return data


def seed_of(*numbers: int) -> int:
    """Mix numbers into one seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Run:
    """One training run: its folder, network, optimizer and place.

    Args:
        recipe: a completed recipe (`recipe.complete`).
        folder: where the run's files go; made if it does not exist.
        resume: continue what lies in `folder`; otherwise the folder must not hold a run.
        quiet: neither progress bar nor lines.
        test: read the test set at the end. A trial of a search does not.

    Raises InputError for data that cannot be read, a folder in use, or a resumption with other settings.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, resume: bool = False, quiet: bool = False, test: bool = True
    ) -> None:
        self.recipe, self.folder, self.test = recipe, folder, test
        if recipe.deterministic:
            use_deterministic_algorithms()
        self.device = pick_device(recipe.device)
        if self.device.type == "cpu":
            if recipe.precision == "16":
                raise InputError("--precision 16 needs a CUDA device. Use --precision bf16 or 32.")
            if recipe.cuda_graph:
                raise InputError("--cuda-graph needs a CUDA device. Leave it out on the CPU.")
        assert recipe.devices and recipe.nodes
        precision = PRECISIONS[recipe.precision]
        autocast = Autocast(precision, self.device.type) if precision else None
        self.fabric, self.processes = launch(self.device, recipe.devices, recipe.nodes, autocast)
        self.device, self.quiet = self.fabric.device, quiet or not self.processes.first
        self.task = TASKS[recipe.task]
        with self.processes.together():
            check_start(recipe, folder, resume)
            train_split, select_split = ("train", "val") if recipe.select == "val" else ("trainval", "test")
            self.train_set, self.select_set, self.test_set = (
                self.task.load(recipe, split) for split in (train_split, select_split, "test")
            )
            if resume:
                check_data(folder, self.train_set.fingerprint())
            self.loader = Loader(
                self.train_set, recipe.batch_size, self.device, shuffle=True, drop_last=True, seed=recipe.seed
            )
        self.augment = AUGMENTATIONS[recipe.augment or "none"]
        self.generator = torch.Generator(self.device)
        torch.manual_seed(recipe.seed)
        self.answers_per_cloud = self.task.answers(self.train_set.targets[:1]).numel()
        self.part_names = self.train_set.part_names if isinstance(self.train_set, PartClouds) else []
        self.about = {  # what a checkpoint says beside its weights
            "config": as_config(recipe),
            "class_names": self.train_set.class_names,
            "part_names": self.part_names,
            "frame": asdict(self.train_set.frame) if self.train_set.frame else None,
        }
        model = build_model(recipe, self.train_set.num_classes, len(self.part_names))
        with self.processes.together():
            if recipe.start and not (resume and (folder / "last.pt").exists()):
                take_over(model, recipe, self.train_set.class_names, self.part_names)
        if recipe.freeze:
            freeze_body(model)
        if recipe.sync_bn:
            synchronize_batch_norms(model)
        self.model, self.optimizer = self.fabric.setup(model, build_optimizer(recipe, model))
        self.processes.take_from_first(self.model)
        self.progress = Progress()
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # the epoch's loss and correct answers
        self.accumulate: Callable[[Tensor, Tensor], None] = self._accumulate
        if recipe.cuda_graph:
            self.accumulate = Replay(self._accumulate, self.model, (self.sums,))
        # What a CUDA graph needs it takes while it is recorded, in the first step.
        self.idle_memory_bytes = memory_bytes(self.device) if recipe.cuda_graph else None
        with self.processes.together():
            if resume and (folder / "last.pt").exists():
                self.progress = restore(folder, recipe, self.model, self.optimizer, self.fabric.strategy.precision)
        most, least = self.processes.largest(self.progress.step, -self.progress.step)
        with self.processes.together():
            if most != -least:
                raise InputError(f"the processes of this run find different files in {folder}. Let all share it.")

    @property
    def epoch(self) -> int:
        """Whole epochs trained."""
        return self.progress.step // len(self.loader)

    def train(self) -> dict[str, Any]:
        """Train to the end and return what `results.json` then holds. Raises Interrupted when asked to stop."""
        with self.processes.together():
            self._open_folder()
        assert self.recipe.epochs is not None
        total = self.recipe.epochs * len(self.loader) * self.recipe.batch_size
        done = self.progress.step * self.recipe.batch_size
        with (
            stop_requests() as requests,
            open_board(self.folder, self.epoch) if self.processes.first else nullcontext() as board,
            tqdm(total=total, initial=done, unit=" clouds", disable=self.quiet or None, dynamic_ncols=True) as bar,
        ):
            if board is not None and self.epoch == 0:
                self._show_samples(board)
            while self.epoch < self.recipe.epochs:
                self._train_epoch(bar, requests)
                with self.processes.together():
                    if self.epoch > self.progress.scored:
                        self._finish_epoch(bar, board)
                    else:  # asked to stop before the epoch's end
                        self._save("last.pt")
                (signum,) = self.processes.largest(*requests[:1] or (0,))
                if signum:
                    raise Interrupted(
                        f"stopped after step {self.progress.step} of {self.recipe.epochs * len(self.loader)}; the "
                        "place is saved. Go on with the same command (train: add --resume).",
                        signum,
                    )
        with self.processes.together():
            return self._finish()

    def _train_epoch(self, bar: "tqdm[Any]", requests: list[int]) -> None:
        """Train to the end of the epoch, or to the first step after a request to stop."""
        train_mode(self.model.module, self.recipe.freeze)
        epoch, start = divmod(self.progress.step, len(self.loader))
        bar.set_description(f"epoch {epoch + 1}/{self.recipe.epochs}")
        reset_peak_memory(self.device)
        begun = shown = time.perf_counter()

        def asked() -> tuple[int, int]:
            """Whether to stop, and whether to read the loss: that waits for the device, so not at every step."""
            return int(bool(requests)), int(time.perf_counter() - shown > 0.5)

        batches = self.loader.epoch(epoch, start)
        for (points, targets), (stop, show) in self.processes.in_step(batches, asked):
            if show and self.progress.step > epoch * len(self.loader):
                shown = time.perf_counter()
                self._read_sums()
                mean_loss = self.progress.loss_sum / self._answers_this_epoch(epoch)
                bar.set_postfix(loss=f"{mean_loss:.3f}", lr=f"{self.optimizer.param_groups[0]['lr']:.2g}")
            if stop:
                break
            self._optimizer_step(points, targets)
            self.progress.step += 1
            if self.idle_memory_bytes is None:  # what the first step takes, libraries too, is there to stay
                reset_peak_memory(self.device)
                self.idle_memory_bytes = memory_bytes(self.device)
            bar.update(len(targets))
        self._read_sums()
        self.progress.seconds += time.perf_counter() - begun
        self._note_memory()

    def _note_memory(self) -> None:
        peak = peak_memory_bytes(self.device)
        self.progress.peak_memory_bytes = max(self.progress.peak_memory_bytes, peak)
        if self.idle_memory_bytes is not None:
            self.progress.memory_bytes = max(self.progress.memory_bytes, peak - self.idle_memory_bytes)

    def _answers_this_epoch(self, epoch: int) -> int:
        steps = self.progress.step - epoch * len(self.loader)
        return steps * self.recipe.batch_size * self.answers_per_cloud

    def _optimizer_step(self, points: Tensor, targets: Tensor) -> None:
        """One step on a batch: points (B, N, 3), targets (B, ...), in micro-batches whose gradients accumulate."""
        recipe, step = self.recipe, self.progress.step
        lr = learning_rate(recipe, step, len(self.loader))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # The whole batch at once, so that the micro-batch does not change what is drawn.
        points = self.augment(points, self.generator.manual_seed(seed_of(recipe.seed, step, AUGMENTATION)))
        torch.manual_seed(seed_of(recipe.seed, step, DROPOUT + self.processes.rank))
        size = min(recipe.micro_batch or recipe.batch_size, recipe.batch_size // self.processes.count)
        points, targets = (self.processes.share(part, size) for part in (points, targets))
        micro_batches = zip(points.transpose(1, 2).split(size), targets.split(size), strict=True)
        with one_update(self.model, self.processes.total if self.processes.count > 1 else None):
            for cloud, target in micro_batches:
                self.accumulate(cloud, target)
        self.processes.add_gradients(self.model)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=not recipe.cuda_graph)

    def _accumulate(self, cloud: Tensor, target: Tensor) -> None:
        """Add the gradients of one micro-batch: cloud (micro_batch, 3, N), target (micro_batch, ...)."""
        logits = self.task.logits(self.model, cloud, target)  # (micro_batch, num_classes, ...)
        answers = self.task.answers(target)  # (micro_batch, ...)
        rows = logits.movedim(1, -1).flatten(0, -2)  # an answer each: for more axes CUDA adds in any order
        smoothing = self.recipe.label_smoothing
        loss = F.cross_entropy(rows, answers.flatten(), label_smoothing=smoothing, reduction="sum")
        # Of all micro-batches, in all processes, these add up to the mean.
        self.fabric.backward(loss / (self.recipe.batch_size * self.answers_per_cloud))
        correct = (logits.detach().argmax(1) == answers).sum()
        self.sums += torch.stack([loss.detach(), correct])

    def _read_sums(self) -> None:
        """Move the devices' sums into the progress."""
        loss, correct = self.processes.total(self.sums).tolist()
        self.sums.zero_()
        with self.processes.together():
            self._require_finite("training loss", loss)
        self.progress.loss_sum += loss
        self.progress.num_correct += int(correct)

    def _require_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise InputError(
                f"the {name} became {value} around step {self.progress.step} of {self.folder}. "
                "Lower --lr or add --warmup-epochs, under another --name."
            )

    def _show_samples(self, board: Board) -> None:
        """Put the first clouds of the first step on the board, as they are stored and as the network sees them."""
        points, _ = next(self.loader.epoch(0))
        seen = self.augment(points, self.generator.manual_seed(seed_of(self.recipe.seed, 0, AUGMENTATION)))
        board.add_samples(points, seen, self.train_set.labels[self.loader.order(0)], self.train_set.class_names)

    def _finish_epoch(self, bar: "tqdm[Any]", board: Board | None) -> None:
        """Score the selection split, write the epoch's line, keep the checkpoints."""
        progress, epoch = self.progress, self.epoch
        self.processes.take_from_first(self.model)  # batch norm's running statistics are each process's own
        with self.fabric.autocast():
            scores = self.task.evaluate(
                self.model.module, self.select_set, EVAL_BATCH, self.device, processes=self.processes
            )
        self._require_finite("validation loss", scores.loss)
        clouds = len(self.loader) * self.recipe.batch_size
        answers = clouds * self.answers_per_cloud
        metrics = {
            "epoch": epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            "train_loss": progress.loss_sum / answers,
            "train_accuracy": progress.num_correct / answers,
            "selected_on": self.recipe.select,
            **scores.metrics(),
            "num_clouds": scores.num_clouds,
            "seconds": progress.seconds,
            "clouds_per_second": epoch * clouds / progress.seconds,
            "peak_memory_bytes": progress.peak_memory_bytes,
        }
        progress.history.append(metrics)
        if board is not None:
            board.add_metrics(metrics)
            if scores.criterion > progress.best_accuracy or epoch == self.recipe.epochs:
                board.add_confusion(scores.confusion, self.task.answer_names(self.train_set), self.task.unit, epoch)
        progress.loss_sum, progress.num_correct = 0.0, 0
        if scores.criterion > progress.best_accuracy:
            progress.best_accuracy, progress.best_epoch = scores.criterion, epoch
        # last.pt decides what has happened; the others follow from it, here or when a killed run goes on.
        self._save("last.pt")
        if progress.best_epoch == epoch:
            self._save("best.pt")
        if self.processes.first:
            write_lines(self.folder / "metrics.jsonl", progress.history)
        if not self.quiet:
            bar.write(
                f"epoch {epoch:3d}  train loss {metrics['train_loss']:.3f} OA {metrics['train_accuracy']:.1%}  "
                f"{self.recipe.select} {scores} of {scores.num_clouds} clouds"
                f"{'  (best)' if progress.best_epoch == epoch else ''}"
            )

    def _finish(self) -> dict[str, Any]:
        """Read the test set, once, for the selected and the last checkpoint; write results and pictures."""
        results: dict[str, Any] = {"selected_on": self.recipe.select, "best_epoch": self.progress.best_epoch}
        for name in ("best", "last") if self.test else ():
            model = self._restored(name)
            scores = self.task.evaluate(model, self.test_set, EVAL_BATCH, self.device, processes=self.processes)
            self._require_finite("test loss", scores.loss)
            results[name] = scores.as_json()
            if self.recipe.task == "classify" and uses_batch_statistics(model):  # training failed, or its statistics?
                size = self.recipe.micro_batch or self.recipe.batch_size
                size *= self.processes.count if self.recipe.sync_bn else 1
                by_batch = evaluate_by_batch_statistics(
                    model, self.test_set, size, self.device, processes=self.processes
                )
                results[f"{name}_by_batch_statistics"] = by_batch.as_json()
        if not self.processes.first:
            return results
        clouds = self.progress.step * self.recipe.batch_size
        results |= {
            "last_epoch": self.progress.history[-1],
            "seconds": self.progress.seconds,
            "clouds_per_second": clouds / self.progress.seconds,
            "peak_memory_bytes": self.progress.peak_memory_bytes,
            "memory_bytes": self.progress.memory_bytes,
        }
        plots.draw_training(self.progress.history, self.folder / "training.png")
        if self.test:
            names = self.task.answer_names(self.train_set)
            plots.draw_confusion(results["best"]["confusion"], names, self.folder / "confusion.png", self.task.unit)
        write_json(self.folder / "results.json", results)
        return results

    # --- the run's folder ---

    def _restored(self, name: str) -> torch.nn.Module:
        """Return the network of a checkpoint, read by the first process alone: others may see an older file."""
        model = build_model(self.recipe, self.train_set.num_classes, len(self.part_names))
        with self.processes.together():
            if self.processes.first:
                model, _, _ = restore_model(self.folder / f"{name}.pt")
        model.to(self.device)
        self.processes.take_from_first(model)
        return model

    def _open_folder(self) -> None:
        """Make the folder, or put right what a killed process left in it: last.pt decides what has happened."""
        if not self.processes.first:
            return
        make_folder(self.folder, self.recipe, self.train_set.fingerprint(), self.device)
        best = self.progress.best_epoch
        if best and epoch_of(self.folder / "best.pt") != best:
            if self.epoch != best or self.progress.step % len(self.loader):
                raise InputError(
                    f"{self.folder / 'best.pt'} is missing or damaged: epoch {best} should lie there. Put a copy of it "
                    "there, or train anew under another --name; last.pt is whole."
                )
            self._save("best.pt")  # killed between the two
        write_lines(self.folder / "metrics.jsonl", self.progress.history)

    def _save(self, name: str) -> None:
        if not self.processes.first:
            return
        content = self.about | {"epoch": self.epoch, "model": self.model.state_dict()}
        if name == "last.pt":
            self._require_finite("sum of the weights", float(sum(p.detach().sum() for p in self.model.parameters())))
            content["optimizer"] = self.optimizer.state_dict()
            content["scaler"] = self.fabric.strategy.precision.state_dict()
            content["progress"] = asdict(self.progress)
        save_checkpoint(self.folder / name, content)
