"""Training: one visible loop.

Everything random is a pure function of the seed and the step, so a run that stops anywhere goes on from its last
checkpoint as if it had never stopped.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dgcnn_ws.datasets import LabelledClouds, PartClouds
from dgcnn_ws.datasets.augment import augmentation, some_points
from dgcnn_ws.datasets.loader import Loader
from dgcnn_ws.engine import outlook
from dgcnn_ws.engine.average import Average
from dgcnn_ws.engine.display import Display, open_display
from dgcnn_ws.engine.fine_tuning import freeze_body, take_over, train_mode
from dgcnn_ws.engine.folder.run_folder import RunFolder, check_data
from dgcnn_ws.engine.machine.arithmetic import Arithmetic, at_least_float32
from dgcnn_ws.engine.machine.cuda_graph import Replay
from dgcnn_ws.engine.machine.devices import pick_device, use_deterministic_algorithms
from dgcnn_ws.engine.machine.meter import Meter
from dgcnn_ws.engine.parallel.launch import launch
from dgcnn_ws.engine.recipe import Recipe, as_config, build_model, build_optimizer, learning_rate
from dgcnn_ws.engine.results import score_test_set, write_results
from dgcnn_ws.engine.scoring.evaluation import EVAL_BATCH, Scores
from dgcnn_ws.engine.state import Progress, State
from dgcnn_ws.engine.stopping import Interrupted, stop_requests
from dgcnn_ws.engine.task import TASKS
from dgcnn_ws.errors import InputError
from dgcnn_ws.nn.batch_norm import synchronize_batch_norms
from dgcnn_ws.nn.gradient_cache import cached_backward
from dgcnn_ws.nn.norm import one_update

AUGMENTATION, DROPOUT = 1, 2  # streams of random numbers; each process's dropout has its own, from 2 on


def seed_of(*numbers: int) -> int:
    """Mix numbers into one seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Splits(NamedTuple):
    """What a run trains on, what chooses its best checkpoint, and what it is tested on, once, at the end."""

    train: LabelledClouds
    select: LabelledClouds
    test: LabelledClouds | None


def load_splits(recipe: Recipe) -> Splits:
    """Return the splits of the recipe's data set. Raises InputError where it cannot be read."""
    train, *others = ("train", "val", "test") if recipe.select == "val" else ("trainval", "test", "test")
    task = TASKS[recipe.task]
    return Splits(task.load_to_train(recipe, train), *(task.load(recipe, name) for name in others))


class Run:
    """One training run, in this process and the others that train the same network.

    Args:
        recipe: a completed recipe (`recipe.complete`).
        folder: where the run's files go; made if it does not exist.
        resume: continue what lies in `folder`; otherwise the folder must not hold a run.
        quiet: neither progress bar nor lines.
        test: read the test set at the end. A trial of a search does not.
        splits: the clouds, where a program gives them. Default: the recipe's data set.

    Raises InputError for data that cannot be read, a folder in use, or a resumption with other settings.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        resume: bool = False,
        quiet: bool = False,
        test: bool = True,
        splits: Splits | None = None,
    ) -> None:
        self.recipe, self.task = recipe, TASKS[recipe.task]
        if recipe.deterministic:
            use_deterministic_algorithms()
        device = check_device(recipe)
        assert recipe.devices and recipe.nodes
        self.device, self.processes = launch(device, recipe.devices, recipe.nodes)
        self.quiet = quiet or not self.processes.first
        with self.processes.together():
            self.folder = RunFolder(folder, recipe, resume, self.processes)
            self.train_set, self.select_set, test_set = splits or load_splits(recipe)
            self.test_set = test_set if test else None
            self.fingerprint = self.train_set.fingerprint()
            if resume:
                check_data(folder, self.fingerprint)
            size = recipe.batch_size // self.processes.count
            self.micro_batch = min(recipe.micro_batch or size, size)
            self.loader = Loader(
                self.train_set,
                recipe.batch_size,
                self.device,
                shuffle=True,
                drop_last=True,
                seed=recipe.seed,
                mine=self.share(torch.arange(recipe.batch_size)) if self.processes.count > 1 else None,
            )
        self.baseline: float | None = None  # a classical method's accuracy on what selects, where it was asked
        self.class_weights = class_weights(recipe, self.train_set, self.device)
        turns_normals = "normals" in self.train_set.features
        self.augmentation = augmentation(recipe.augment or "none", recipe.rotate, turns_normals)
        self.generator = torch.Generator(self.device)
        self.answers_per_cloud = self.task.answers(self.train_set.targets[:1]).numel()
        self.part_names = self.train_set.part_names if isinstance(self.train_set, PartClouds) else []
        torch.manual_seed(recipe.seed)
        model = build_model(recipe, self.train_set.num_classes, len(self.part_names))
        with self.processes.together():
            if recipe.start and not (resume and (folder / "last.pt").exists()):
                take_over(model, recipe, self.train_set.class_names, self.part_names)
        if recipe.freeze:
            freeze_body(model)
        if recipe.sync_bn or (recipe.head_norm == "bn_whole" and self.processes.count > 1):
            synchronize_batch_norms(model if recipe.sync_bn else model.get_submodule("head"))
        self.model = model.to(self.device)
        self.optimizer = build_optimizer(recipe, self.model)
        self.arithmetic = Arithmetic(recipe.precision, self.device)
        self.processes.take_from_first(self.model)
        about = {
            "config": as_config(recipe),
            "class_names": self.train_set.class_names,
            "part_names": self.part_names,
            "frame": asdict(self.train_set.frame) if self.train_set.frame else None,
        }
        window = recipe.average_weights * len(self.loader)
        average = Average(self.model, window) if window else None
        self.state = State(self.model, self.optimizer, self.arithmetic, about, len(self.loader), average)
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # the epoch's loss and correct answers
        self.accumulate: Callable[[Tensor, Tensor], None] = self._accumulate
        if recipe.cuda_graph:
            self.accumulate = Replay(self._accumulate, self.model, (self.sums,))
        self.meter = Meter(self.device, recipe.cuda_graph)
        with self.processes.together():
            if resume and (folder / "last.pt").exists():
                self.state.restore(folder / "last.pt", recipe)
        for number, differ in (
            (self.progress.step, f"find different files in {folder}. Let all share it."),
            (int(self.fingerprint[:12], 16), "read different training data. Let all read the same."),
        ):
            most, least = self.processes.largest(number, -number)
            with self.processes.together():
                if most != -least:
                    raise InputError(f"the processes of this run {differ}")

    @property
    def progress(self) -> Progress:
        return self.state.progress

    @property
    def epoch(self) -> int:
        """Whole epochs trained."""
        return self.state.epoch

    # --- the loop ---

    def train(self, on_epoch: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """Train to the end and return what `results.json` then holds. Raises Interrupted when asked to stop.

        Args:
            on_epoch: called by the first process after each epoch with its line of metrics.jsonl.
        """
        state, progress, loader, processes = self.state, self.progress, self.loader, self.processes
        epochs = self.recipe.epochs or 0
        with processes.together():
            self.folder.open(self.fingerprint, self.device, state)
        with (
            stop_requests() as requests,
            open_display(self.folder.path, self.recipe, state, processes.first, self.quiet) as display,
        ):

            def flags() -> tuple[bool, bool]:
                """Whether to stop, and whether to read the loss: that waits for the device, so not at every step."""
                return bool(requests), display.is_due()

            if state.epoch == 0 and processes.first:
                self.show_samples(display)
            while state.epoch < epochs:
                train_mode(self.model, self.recipe.freeze)
                display.begin_epoch(state.epoch + 1)
                batches = loader.epoch(state.epoch, state.steps_into_epoch)
                with self.meter.epoch(progress):
                    for (points, targets), (stop, show) in processes.in_step(batches, flags):
                        if show and state.steps_into_epoch:
                            display.loss(self.mean_loss(), self.lr)
                        if stop:
                            break
                        self.optimizer_step(points, targets)
                        if state.average is not None:
                            state.average.update(self.model, progress.step)
                        progress.step += 1
                        self.meter.after_step()
                        display.clouds(len(targets))
                    self.count_answers()
                with processes.together():
                    if state.epoch > progress.scored:
                        self.score_epoch(display)
                        if on_epoch is not None and processes.first:
                            on_epoch(progress.history[-1])
                    else:  # asked to stop before the epoch's end
                        self.folder.save(state)
                if signum := processes.largest(*requests[:1] or (0,))[0]:
                    place = f"stopped after step {progress.step} of {epochs * len(loader)}; the place is saved."
                    raise Interrupted(f"{place} Go on with the same command (train: add --resume).", signum)
        with processes.together():
            return self.finish()

    def optimizer_step(self, points: Tensor, targets: Tensor) -> None:
        """Take one step on a batch, points (B, N, 3) and targets (B, ...): micro-batches, whose gradients add up."""
        recipe, step, processes = self.recipe, self.progress.step, self.processes
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, len(self.loader))
        points = self.augment(points, step)  # all at once, so that the micro-batch does not change what is drawn
        torch.manual_seed(seed_of(recipe.seed, step, DROPOUT + processes.rank))
        points, targets = self.share(points), self.share(targets)
        clouds = points.transpose(1, 2).split(self.micro_batch)
        with one_update(self.model, processes.total if processes.count > 1 else None):
            if recipe.head_norm == "bn_whole" and len(clouds) > 1:
                self.accumulate_whole(clouds, targets)
            else:
                for cloud, target in zip(clouds, targets.split(self.micro_batch), strict=True):
                    self.accumulate(cloud, target)
        processes.add_gradients(self.model)
        self.arithmetic.step(self.optimizer)
        self.optimizer.zero_grad(set_to_none=not recipe.cuda_graph)

    def _accumulate(self, cloud: Tensor, target: Tensor) -> None:
        """Add the gradients of one micro-batch: cloud (micro_batch, 3, N), target (micro_batch, ...)."""
        with self.arithmetic.autocast():
            logits = self.task.logits(self.model, cloud, target)  # (micro_batch, num_classes, ...)
        self._learn(logits, target)

    def accumulate_whole(self, clouds: Sequence[Tensor], targets: Tensor) -> None:
        """Add the gradients of a batch whose head sees it whole: clouds of (micro_batch, 3, N), targets (B,)."""
        model: Any = self.model

        def pool(cloud: Tensor) -> Tensor:
            with self.arithmetic.autocast():
                return model.pool(cloud)

        def learn(pooled: Tensor) -> None:
            with self.arithmetic.autocast():
                logits = model.head(pooled)
            self._learn(logits, targets)

        if self.recipe.freeze:  # the gradient ends at the head
            with torch.no_grad():
                pooled = torch.cat([pool(cloud) for cloud in clouds])
            learn(pooled)
        else:
            cached_backward(pool, clouds, learn, self.model)

    def _learn(self, logits: Tensor, target: Tensor) -> None:
        """Backpropagate from logits (B, num_classes, ...), and count their loss and what they have right."""
        answers = self.task.answers(target)  # (micro_batch, ...)
        rows = at_least_float32(logits).movedim(1, -1).flatten(0, -2)  # for more axes CUDA adds in any order
        smoothing = self.recipe.label_smoothing
        weights = self.class_weights
        loss = F.cross_entropy(rows, answers.flatten(), weights, label_smoothing=smoothing, reduction="sum")
        # Of all micro-batches, in all processes, these add up to the mean.
        self.arithmetic.backward(loss / (self.recipe.batch_size * self.answers_per_cloud))
        correct = (logits.detach().argmax(1) == answers).sum()
        self.sums += torch.stack([loss.detach(), correct])

    # --- its parts ---

    def share(self, batch: Tensor) -> Tensor:
        """Return this process's part of a batch (B, ...): see `Processes.share`."""
        return self.processes.share(batch, self.micro_batch)

    def augment(self, points: Tensor, step: int) -> Tensor:
        """Return the clouds (B, N, 3) as the network sees them in this step."""
        generator = self.generator.manual_seed(seed_of(self.recipe.seed, step, AUGMENTATION))
        if self.recipe.redraw:
            points = some_points(points, self.recipe.num_points, generator)
        return self.augmentation(points, generator)

    def count_answers(self) -> None:
        """Move the devices' sums into the progress."""
        loss, correct = self.processes.total(self.sums).tolist()
        self.sums.zero_()
        with self.processes.together():
            self.folder.require_finite("training loss", loss, self.state)
        self.progress.loss_sum += loss
        self.progress.num_correct += int(correct)

    def mean_loss(self) -> float:
        """Return the training loss of the epoch's steps so far."""
        self.count_answers()
        return self.progress.loss_sum / self.answers(self.state.steps_into_epoch)

    def answers(self, steps: int) -> int:
        """Return how many answers so many steps ask for: one a cloud, or one a point."""
        return steps * self.recipe.batch_size * self.answers_per_cloud

    @property
    def lr(self) -> float:
        """The learning rate of the last step."""
        return self.optimizer.param_groups[0]["lr"]

    def show_samples(self, display: Display) -> None:
        """Show this process's first clouds of the first step, as they are stored and as the network sees them."""
        points, _ = next(self.loader.epoch(0))
        labels = self.train_set.labels[self.loader.order(0)[: len(points)]]
        stored, seen, labels = map(self.share, (points, self.augment(points, 0), labels))
        display.samples(stored, seen, labels, self.train_set.class_names)

    def score_epoch(self, display: Display) -> None:
        """Score the selection split, show it, and keep the checkpoints."""
        state, progress = self.state, self.progress
        if state.average is not None and self.recipe.task == "classify":
            with self.processes.together():  # it reads clouds
                state.average.measure(self.train_set, self.recipe.num_points, self.device)
        # Batch norm's running statistics are each process's own.
        for model in dict.fromkeys((self.model, state.result)):
            self.processes.take_from_first(model)
        with self.arithmetic.autocast():
            scores = self.task.evaluate(
                state.result,
                self.select_set,
                EVAL_BATCH,
                self.device,
                processes=self.processes,
                calibrate=self.recipe.select == "val",  # test clouds decide nothing
            )
        self.folder.require_finite("validation loss", scores.loss, state)
        line = self.line(scores)
        balanced = self.recipe.class_weights == "balanced"
        best = progress.end_epoch(line, scores.mean_class_accuracy if balanced else scores.criterion)
        display.scores(line, scores, best, self.task.answer_names(self.train_set), self.task.unit)
        self.folder.save(state)
        display.line(line, scores, best)

    def line(self, scores: Scores) -> dict[str, Any]:
        """Return an epoch's line of metrics.jsonl."""
        progress, answers = self.progress, self.answers(len(self.loader))
        return {
            "epoch": self.epoch,
            "lr": self.lr,
            "train_loss": progress.loss_sum / answers,
            "train_accuracy": progress.num_correct / answers,
            "selected_on": self.recipe.select,
            **scores.metrics(),
            "num_clouds": scores.num_clouds,
            "seconds": progress.seconds,
            "clouds_per_second": progress.step * self.recipe.batch_size / progress.seconds,
            "peak_memory_bytes": progress.peak_memory_bytes,
        }

    def finish(self) -> dict[str, Any]:
        """Read the test set, once, for the selected and the last checkpoint; write results and pictures."""
        progress = self.progress
        results: dict[str, Any] = {"selected_on": self.recipe.select, "best_epoch": progress.best_epoch}
        results["outlook"] = outlook.of_run(progress.history, progress.best_epoch, progress.step, self.baseline)
        if self.test_set is not None:
            for name in ("best", "last"):
                model = self.folder.read(f"{name}.pt", self.train_set.num_classes, len(self.part_names), self.device)
                scores = score_test_set(self.recipe, model, self.test_set, self.device, self.processes)
                self.folder.require_finite("test loss", scores[""].loss, self.state)
                results |= {name + how: found.as_json() for how, found in scores.items()}
        if self.processes.first:
            answer_names = self.task.answer_names(self.train_set)
            write_results(self.folder.path, results, progress, self.recipe, answer_names)
        return results


def class_weights(recipe: Recipe, train_set: LabelledClouds, device: torch.device) -> Tensor | None:
    """Return what a cloud of each class (num_classes,) counts for in the loss; None where all clouds count alike.

    Raises InputError where there is one class alone, of which nothing can be learned.
    """
    if recipe.task == "classify" and train_set.num_classes < 2:
        raise InputError(
            f"the data have one class alone, {train_set.class_names[0]!r}: there is nothing to tell it from. Add "
            "shapes of other classes, or all else as one class."
        )
    if recipe.class_weights == "none":
        return None
    counts = torch.bincount(train_set.labels.cpu(), minlength=train_set.num_classes).double()
    present = int((counts > 0).sum())
    return (len(train_set) / (present * counts.clamp_min(1))).to(device, torch.float32)


def check_device(recipe: Recipe) -> torch.device:
    """Return the device that the recipe names. Raises InputError where it is missing, or cannot do what is asked."""
    device = pick_device(recipe.device)
    if device.type == "cpu":
        if recipe.precision == "16":
            raise InputError("--precision 16 needs a CUDA device. Use --precision bf16 or 32.")
        if recipe.cuda_graph:
            raise InputError("--cuda-graph needs a CUDA device. Leave it out on the CPU.")
    return device
