"""The training loop: batches, gates, clusterings, validation, early stopping, checkpoints."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from coterie.runtime.errors import TrainingError
from coterie.training.batches import Batch, BatchSource
from coterie.training.checkpoint import CheckpointFolder, restore_optimizer, save_weights
from coterie.training.config import RunConfig
from coterie.training.data import Dataset
from coterie.training.estimator import BaselineTracker
from coterie.training.evaluate import evaluate
from coterie.training.history import History
from coterie.training.losses import QuestionLoss
from coterie.training.model import MultiTaskModel
from coterie.training.moments import Moments
from coterie.training.objective import Objective
from coterie.training.optimise import make_optimizer, set_rates
from coterie.training.progress import Watcher

BEST = "best.safetensors"


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
        self, config: RunConfig, dataset: Dataset, model: MultiTaskModel, folder: Path, watcher: Watcher
    ) -> None:
        self.config = config
        self.model = model
        self._folder = folder
        self._watcher = watcher
        settings = config.trainer
        self._train = BatchSource(
            dataset.splits["train"], len(dataset.tasks), balance=settings.task_balance == "tasks"
        )
        self._dev = BatchSource(dataset.splits["dev"], len(dataset.tasks))
        self._loss = QuestionLoss(dataset.tasks, model.head.scale, label_smoothing=settings.label_smoothing)
        self._dev_loss = QuestionLoss(dataset.tasks, model.head.scale)
        self._optimizer = make_optimizer(model, settings, config.model)
        self._moments = Moments(self._optimizer)
        self._gates = torch.Generator().manual_seed(config.seed)
        self._baseline = BaselineTracker(len(dataset.tasks))
        self._objective = Objective(model, self._loss, settings.gate_samples, self._gates, self._baseline)
        self._checkpoints = CheckpointFolder(folder / "checkpoints")
        self._progress = _Progress()
        self._last_labels: dict[str, list[int]] = {}

    def fit(self) -> None:
        """Train to the last epoch or until patience ends; leave the best weights in ``best.safetensors``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            done = self._resume()
            history = History(self._folder, keep=done)
            epochs, size = self.config.trainer.epochs, self.config.trainer.batch_size
            self._watcher.start(epochs=epochs, batches=self._train.number(size), done=done)
            try:
                for epoch in range(done, epochs):
                    if self._progress.stopped:
                        break
                    record = self._epoch(epoch)
                    history.add(record)
                    self._save(epoch + 1)
                    self._watcher.epoch(record)
            finally:
                self._watcher.end()
                history.close()

    def _epoch(self, epoch: int) -> dict[str, Any]:
        began = time.perf_counter()
        self.model.train()
        for stage in self.model.each_stage():
            stage.begin_epoch(epoch, self._moments)
        shuffle = np.random.default_rng([self.config.seed, epoch])
        losses, questions = 0.0, 0
        for step, batch in enumerate(self._train.batches(self.config.trainer.batch_size, shuffle)):
            loss = self._step(batch, epoch, step)
            losses += loss * len(batch.task)
            questions += len(batch.task)
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "train": {"loss": losses / max(questions, 1)},
            "stages": self._stage_reports(),
        }
        self.model.eval()
        scores = evaluate(self.model, self._dev, self.model.tasks, self._dev_loss)
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

    def _step(self, batch: Batch, epoch: int, step: int) -> float:
        """Make one update; return the mean loss of a question."""
        outcome = self._objective(batch)
        loss = outcome.loss()
        objective = loss + outcome.extra
        if not bool(torch.isfinite(objective)):
            raise TrainingError(
                f"the loss is {objective.item()} at epoch {epoch + 1}, batch {step + 1}: use a smaller lr, "
                "set trainer.gradient_clip, or look for extreme values in the data"
            )
        self._optimizer.zero_grad(set_to_none=True)
        objective.backward()  # type: ignore[no-untyped-call]
        if self.config.trainer.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.trainer.gradient_clip)
        set_rates(self._optimizer, self.config.trainer, self._done_share(epoch, step))
        self._optimizer.step()
        for stage in self.model.each_stage():
            stage.after_step(epoch, step, self._moments)
        gated = self.model.gated_stages()
        density = (
            sum(float(stage.density().detach().mean()) for stage in gated) / len(gated) if gated else None
        )
        self._watcher.batch(loss=loss.item(), density=density)
        return loss.item()

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
        if not all(stage.clustered for stage in self.model.cluster_stages()):
            return False  # An unclustered model is not what will be frozen.
        if value > self._progress.best:
            self._progress.best, self._progress.best_epoch, self._progress.stale = value, epoch + 1, 0
            save_weights(self.model, self._folder / BEST)
            return True
        self._progress.stale += 1
        patience = self.config.trainer.patience
        self._progress.stopped = patience is not None and self._progress.stale >= patience
        return False

    def _save(self, epoch: int) -> None:
        generators: dict[str, Tensor] = {"gates": self._gates.get_state(), "torch": torch.get_rng_state()}
        progress = {
            **vars(self._progress),
            "labels": self._last_labels,
            "baseline": self._baseline.state(),
        }
        if not math.isfinite(self._progress.best):
            progress["best"] = None
        self._checkpoints.save(epoch, self.model, self._optimizer, generators, progress)

    def _resume(self) -> int:
        """Go back to the newest checkpoint; return the number of epochs already made."""
        path = self._checkpoints.latest()
        if path is None:
            return 0
        tensors, state = self._checkpoints.restore(path, self.model)
        self._optimizer = make_optimizer(self.model, self.config.trainer, self.config.model)
        self._moments = Moments(self._optimizer)
        restore_optimizer(self.model, self._optimizer, tensors, state["optimizer"])
        self._gates.set_state(tensors["rng/gates"])
        torch.set_rng_state(tensors["rng/torch"])
        progress = dict(state["progress"])
        self._last_labels = progress.pop("labels")
        self._baseline.restore(progress.pop("baseline"))
        if progress["best"] is None:
            progress["best"] = -math.inf
        self._progress = _Progress(**progress)
        return int(state["epoch"])
