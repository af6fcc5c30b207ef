"""The training loop: batches, gates, clusterings, validation, early stopping, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor, nn

from coterie.runtime.errors import ConfigError, TrainingError
from coterie.training.config import RunConfig
from coterie.training.data import Dataset
from coterie.training.draws import BaselineTracker
from coterie.training.loop.average import WeightAverage
from coterie.training.loop.balancing import GradientSurgery, UncertaintyLoss
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.checkpoint import CheckpointFolder, restore_optimizer, save_weights
from coterie.training.loop.evaluate import evaluate
from coterie.training.loop.gradients import BatchGradient, seed_of
from coterie.training.loop.history import History
from coterie.training.loop.lessons import AnswerLoss, Lessons
from coterie.training.loop.losses import Loss, QuestionLoss
from coterie.training.loop.objective import Objective
from coterie.training.loop.optimise import make_optimizer, set_rates
from coterie.training.loop.progress import Watcher
from coterie.training.loop.ranks import Ranks
from coterie.training.loop.samplers import Ints, Rates
from coterie.training.model import MultiTaskModel
from coterie.training.moments import Moments

BEST, CHECKPOINTS = "best.safetensors", "checkpoints"
_AVERAGE = "average/"
_LOG_VARIANCE = "balancing/log_variance"


@dataclass
class _Progress:
    """What early stopping remembers; part of a checkpoint."""

    best: float = -math.inf
    best_epoch: int = 0
    stale: int = 0
    stopped: bool = False


class Trainer:
    """Trains one model in one run folder.

    A checkpoint is written after every epoch. ``fit`` goes on from the newest one when there is one, and then
    ends with the same weights as a training that was never interrupted.
    """

    def __init__(
        self,
        config: RunConfig,
        dataset: Dataset,
        model: MultiTaskModel,
        folder: Path,
        watcher: Watcher,
        *,
        ranks: Ranks | None = None,
        lessons: Lessons | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self._folder = folder
        self._ranks = ranks or Ranks(torch.device("cpu"))
        self._watcher = watcher if self._ranks.first else Watcher()
        settings, tasks, device = config.trainer, len(dataset.tasks), self._ranks.device
        if self._ranks.world > 1:
            _check_processes(model)
        model.to(device).compute_in(settings.precision, compiled=settings.compile)
        self._train = BatchSource(
            dataset.splits["train"],
            tasks,
            balance=settings.task_balance == "tasks",
            task_weights=_by_number(settings.task_weights, model),
            rates=Rates(sampler=settings.sampler, temperature=settings.temperature, bucket=settings.bucket),
            lessons=lessons,
            device=device,
        )
        self._dev = BatchSource(dataset.splits["dev"], tasks, device=device)
        self._dev_loss = QuestionLoss(dataset.tasks, model.head.scale.cpu())
        plain = QuestionLoss(dataset.tasks, model.head.scale, label_smoothing=settings.label_smoothing)
        loss: Loss = plain
        surgery = None
        # What is learned beside the model's weights, by its name in a checkpoint.
        self._others: dict[str, nn.Parameter] = {}
        if settings.balancing == "uncertainty":
            loss = weighed = UncertaintyLoss(plain, dataset.tasks, device)
            self._others[_LOG_VARIANCE] = weighed.log_variance
        elif settings.balancing != "none":
            surgery = GradientSurgery(settings.balancing, model, self._ranks)
        gates = torch.Generator()
        self._baseline = BaselineTracker(tasks)
        self._gradient = BatchGradient(
            Objective(
                model,
                loss,
                gates,
                self._baseline,
                estimator=settings.gate_estimator,
                samples=settings.gate_samples,
                asked=self._train.asked,
                differs=None if lessons is None else AnswerLoss(dataset.tasks, model.head.scale),
            ),
            self._train,
            gates=gates,
            parts=settings.accumulate,
            surgery=surgery,
            ranks=self._ranks,
        )
        self._average = None if settings.ema is None else WeightAverage(settings.ema)
        self._checkpoints = CheckpointFolder(folder / CHECKPOINTS)
        self._progress = _Progress()
        self._last_labels: dict[str, list[int]] = {}
        self._make_optimizer()

    def _make_optimizer(self) -> None:
        others = list(self._others.values())
        self._optimizer = make_optimizer(self.model, self.config.trainer, self.config.model, others)
        self._moments = Moments(self._optimizer)

    def fit(self) -> None:
        """Train to the last epoch or until patience ends; leave the best weights in ``best.safetensors``."""
        device = self._ranks.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            done = self._resume()
            history = History(self._folder, keep=done) if self._ranks.first else None
            epochs, size = self.config.trainer.epochs, self.config.trainer.batch_size
            batches = self._train.number(size)
            self._watcher.start(epochs=epochs, batches=batches, done=done, tasks=self.model.tasks)
            try:
                for epoch in range(done, epochs):
                    if self._progress.stopped:
                        break
                    # An epoch depends on its number, and on nothing that was drawn before it.
                    torch.manual_seed(seed_of(self.config.seed, epoch, self._ranks.rank))
                    record = self._epoch(epoch)
                    if history is not None:
                        history.add(record)
                        self._save(epoch + 1)
                    self._watcher.epoch(record)
            finally:
                self._watcher.end()
                if history is not None:
                    history.close()

    def _epoch(self, epoch: int) -> dict[str, Any]:
        began = time.perf_counter()
        self.model.train()
        for stage in self.model.each_stage():
            stage.begin_epoch(epoch, self._moments)
            stage.settle(epoch, self._moments, self._dev_losses)
        shuffle = np.random.default_rng([self.config.seed, epoch])
        losses, questions = 0.0, 0
        for step, batch in enumerate(self._train.epoch(self.config.trainer.batch_size, shuffle)):
            losses += self._step(batch, epoch, step) * len(batch)
            questions += len(batch)
        self._ranks.check_same(list(self.model.state_dict().values()))
        self._baseline.agree(self._ranks.sum)
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "train": {"loss": losses / max(questions, 1)},
            "stages": self._stage_reports(),
        }
        if _LOG_VARIANCE in self._others:
            variance = self._others[_LOG_VARIANCE].tolist()
            record["log_variance"] = {
                task.name: round(value, 4) for task, value in zip(self.model.tasks, variance, strict=True)
            }
        self.model.eval()
        with nullcontext() if self._average is None else self._average.in_place(self.model):
            scores = evaluate(self.model, self._dev, self.model.tasks, self._dev_loss, self._ranks)
            record["dev"] = {"loss": scores.loss, "metric": scores.metric, "tasks": scores.tasks}
            value = scores.metric if self.config.trainer.monitor == "metric" else -scores.loss
            record["best"] = self._judge(epoch, value)
        record["assignments"] = {
            stage.name: stage.labels.tolist() for stage in self.model.cluster_stages() if stage.clustered
        }
        record["gates"] = {
            stage.name: [[round(float(p), 4) for p in row] for row in stage.probabilities().detach()]
            for stage in self.model.gated_stages()
        }
        record["seconds"] = round(time.perf_counter() - began, 3)
        return record

    def _dev_losses(self) -> Tensor:
        """Return each task's dev loss of the model as it is, ``[N]``."""
        self.model.eval()
        scores = evaluate(self.model, self._dev, self.model.tasks, self._dev_loss, self._ranks)
        self.model.train()
        return torch.from_numpy(scores.losses)

    def _step(self, questions: Ints, epoch: int, step: int) -> float:
        """Make one update; return the mean loss of a question."""
        parameters = [*self.model.parameters(), *self._others.values()]
        try:
            loss, objective = self._gradient(questions, parameters, seed_of(self.config.seed, epoch, step))
        except RuntimeError as error:
            if not self.config.trainer.compile:
                raise
            reason = str(error).strip().partition("\n")[0]
            raise TrainingError(
                f"a step with compiled blocks failed ({reason}): set trainer.compile to false, or install "
                "what the compiler needs (a C++ compiler on a CPU)"
            ) from error
        if not math.isfinite(objective):
            raise TrainingError(
                f"the loss is {objective} at epoch {epoch + 1}, batch {step + 1}: use a smaller lr, "
                "set trainer.gradient_clip, or look for extreme values in the data"
            )
        if self.config.trainer.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.trainer.gradient_clip)
        set_rates(self._optimizer, self.config.trainer, self._done_share(epoch, step))
        self._optimizer.step()
        for cluster in self.model.cluster_stages():
            self._ranks.share(cluster.similarity)
        for stage in self.model.each_stage():
            stage.after_step(epoch, step, self._moments)
        if self.model.budget is not None:
            self.model.budget.after_step()
        if self._average is not None:
            self._average.update(self.model)
        gated = self.model.gated_stages()
        density = (
            sum(float(stage.density().detach().mean()) for stage in gated) / len(gated) if gated else None
        )
        self._watcher.batch(loss=loss, density=density)
        return loss

    def _done_share(self, epoch: int, step: int) -> float:
        """Return how much of the training is done, 0 to 1."""
        settings = self.config.trainer
        return (epoch + step / self._train.number(settings.batch_size)) / settings.epochs

    def _stage_reports(self) -> dict[str, dict[str, float]]:
        reports: dict[str, dict[str, float]] = {}
        for stage in self.model.each_stage():
            report = stage.report()
            if report:
                reports[stage.name] = report
        for cluster in self.model.cluster_stages():
            if not cluster.clustered:
                continue
            labels = cluster.labels.tolist()
            before = self._last_labels.get(cluster.name)
            report = reports.setdefault(cluster.name, {})
            report["clusters"] = len(set(labels))
            if before is not None:
                report["moved"] = sum(old != new for old, new in zip(before, labels, strict=True))
                report["ari"] = float(adjusted_rand_score(before, labels))
            self._last_labels[cluster.name] = labels
        return reports

    def _judge(self, epoch: int, value: float) -> bool:
        """Keep the weights if they are the best so far; count the epochs without improvement otherwise."""
        if not all(stage.ready for stage in self.model.each_stage()):
            return False
        if value > self._progress.best:
            self._progress.best, self._progress.best_epoch, self._progress.stale = value, epoch + 1, 0
            if self._ranks.first:
                save_weights(self.model, self._folder / BEST)
            return True
        self._progress.stale += 1
        patience = self.config.trainer.patience
        self._progress.stopped = patience is not None and self._progress.stale >= patience
        return False

    def _save(self, epoch: int) -> None:
        others: dict[str, Tensor] = dict(self._others)
        progress = {
            **vars(self._progress),
            "labels": self._last_labels,
            "baseline": self._baseline.state(),
        }
        if self._average is not None:
            mean, progress["averaged"] = self._average.state()
            others |= {f"{_AVERAGE}{name}": tensor for name, tensor in mean.items()}
        if not math.isfinite(self._progress.best):
            progress["best"] = None
        self._checkpoints.save(epoch, self.model, self._optimizer, others, progress)

    def _resume(self) -> int:
        """Go back to the newest checkpoint; return the number of epochs already made."""
        path = self._checkpoints.latest()
        if path is None:
            return 0
        tensors, state = self._checkpoints.restore(path, self.model)
        for name, parameter in self._others.items():
            parameter.data.copy_(tensors[name])
        self._make_optimizer()
        restore_optimizer(self.model, self._optimizer, dict(self._others), tensors, state["optimizer"])
        progress = dict(state["progress"])
        if self._average is not None:
            mean = {
                name.removeprefix(_AVERAGE): tensor.to(self._ranks.device)
                for name, tensor in tensors.items()
                if name.startswith(_AVERAGE)
            }
            self._average.restore(mean, progress.pop("averaged"))
        self._last_labels = progress.pop("labels")
        self._baseline.restore(progress.pop("baseline"))
        if progress["best"] is None:
            progress["best"] = -math.inf
        self._progress = _Progress(**progress)
        return int(state["epoch"])


def _check_processes(model: MultiTaskModel) -> None:
    """Refuse several processes where a stage goes by what a single one sees.

    Raises:
        ConfigError: Naming those stages.
    """
    mistakes = [
        f"stage {stage.name!r} {stage.one_process}: train in one process, or configure it otherwise"
        for stage in model.each_stage()
        if stage.one_process
    ]
    if mistakes:
        raise ConfigError("the training cannot use several processes:", mistakes)


def _by_number(weights: Mapping[str, float], model: MultiTaskModel) -> dict[int, float]:
    """Return weights by the tasks' numbers.

    Raises:
        ConfigError: If one is of no task of the data.
    """
    numbers = {task.name: number for number, task in enumerate(model.tasks)}
    unknown = [
        f"trainer.task_weights.{name}: the data has no such task; its tasks are {', '.join(sorted(numbers))}"
        for name in weights
        if name not in numbers
    ]
    if unknown:
        raise ConfigError("the training cannot start:", unknown)
    return {numbers[name]: weight for name, weight in weights.items()}
