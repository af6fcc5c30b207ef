"""A run folder: a training's configuration, history, weights, plan, metrics and plots.

run/
config.yaml             everything that was configured
data.json               what the model takes and answers, and the data's checksum
tokenizer.json          when the input is text
history.jsonl           a line an epoch
tensorboard/            the same, as events
checkpoints/            the newest two, to resume from
best.safetensors        the best weights on dev
plan.json               the sharing plan they freeze to
vectors.safetensors     word vectors that were read or learned before the training
teachers.safetensors    what teachers answer to the train split's questions
teachers.json           what these scored on dev
samples.safetensors     some inputs of the dev split, for an export to be checked with
metrics.json            what the frozen model scores on dev and test
plots/                  who shares with whom, and how the training went
report.html             all of it on one page
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from coterie.runtime.durable import write_file, write_text
from coterie.runtime.errors import CheckpointError, ConfigError, TrainingError
from coterie.runtime.manifest import TensorSpec
from coterie.training.claim import alone, claim
from coterie.training.config import RunConfig
from coterie.training.data import Dataset, load_data
from coterie.training.distillation import teach, teachers_of
from coterie.training.first import First, first_block, first_block_of, target_scale
from coterie.training.hints import hint_of
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.checkpoint import load_weights
from coterie.training.loop.evaluate import Scores, evaluate
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.progress import Watcher
from coterie.training.loop.ranks import choose_device, join
from coterie.training.loop.trainer import BEST, Trainer
from coterie.training.model import MultiTaskModel, build_model
from coterie.training.ngrams import give_ngram_weights
from coterie.training.report import read_metrics, write_report
from coterie.training.run_data import RunData
from coterie.training.run_files import CONFIG, DATA, METRICS, PLAN, SAMPLES, TOKENIZER
from coterie.training.several import Arrays, each, only
from coterie.training.vectors import give_vectors, words_of
from coterie.training.yaml_config import load_config

_SAMPLES = 256
_METRICS = TypeAdapter(dict[str, dict[str, dict[str, float]]])


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: The run folder.
        config: What was configured.
        data: What the model takes and answers.
        model: The model with its best weights, in evaluation mode.
        metrics: Split to task to metric to value, of the frozen model.
        inputs: Some inputs of the dev split, where the folder does not outlive the run.
    """

    folder: Path
    config: RunConfig
    data: RunData
    model: MultiTaskModel
    metrics: dict[str, dict[str, dict[str, float]]]
    inputs: Arrays | None = None

    def mean_metric(self, split: str) -> float:
        """Return the mean over tasks of the metric that they are compared by on a split."""
        scores = [self.metrics[split][task.name].get(task.metric) for task in self.data.tasks]
        known = [score for score in scores if score is not None]
        return sum(known) / len(known) if known else 0.0

    def samples(self) -> Arrays:
        """Return some inputs of the dev split, ``[n, ...]``; of a model with several inputs one of each.

        Raises:
            CheckpointError: If the run folder has lost them.
        """
        if self.inputs is not None:
            return self.inputs
        try:
            kept = load_file(self.folder / SAMPLES)
            return only(tuple(kept[name] for name in _sample_names(self.data.inputs)))
        except (OSError, SafetensorError, KeyError) as error:
            raise CheckpointError(
                f"{SAMPLES} of {self.folder} is missing or damaged: train the run again"
            ) from error

    @property
    def tokenizer(self) -> Path | None:
        """The tokenizer's file, when the input is text."""
        return self.folder / TOKENIZER if self.data.text is not None else None


def train(
    config: RunConfig,
    folder: Path,
    *,
    dataset: Dataset | None = None,
    watcher: Watcher | None = None,
    report: bool = True,
    baseline: Path | None = None,
) -> Run:
    """Train a model, or go on where an interrupted training in ``folder`` stopped.

    Args:
        config: What to train, on what.
        folder: The run folder; made when it is not there.
        dataset: The data, if already loaded.
        watcher: Is told how it goes.
        report: Whether to draw the plots and write ``report.html`` at the end.
        baseline: Another finished run folder, such as one of single-task models, to compare each task with.

    Raises:
        CheckpointError: If ``baseline`` is not a finished run.
        ConfigError: If the model cannot be built, or not grouped in as many epochs; the folder is as it was.
        TrainingError: If the folder holds a run of another configuration or other data, or another training
            is at work in it.
    """
    _check_paths(folder, baseline)  # rather now than after the training
    dataset = load_data(config.data) if dataset is None else dataset
    data = RunData(
        inputs=dataset.inputs,
        tasks=dataset.tasks,
        vocabulary=0 if dataset.text is None else dataset.text.vocabulary,
        text=None if dataset.text is None else dataset.text.spec,
        sha256=dataset.sha256,
    )
    with (
        join(choose_device(config.trainer.device)) as ranks,
        _threads(config.trainer.threads),
        ExitStack() as held,
    ):
        first = first_block(dataset) if config.model.standardise else first_block_of(dataset.inputs)
        words = () if dataset.text is None else words_of(dataset.text.tokenizer)
        model = _fresh_model(config, data, first, words)
        _check_epochs(config, model)
        for teacher in teachers_of(config):
            _check_epochs(teacher, _fresh_model(teacher, data, first, words), whose=f"{teacher.name}: ")
        if ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(alone(folder))
            claim(folder, config, data, over_untrained=True)
            if dataset.text is not None:
                write_text(folder / TOKENIZER, dataset.text.tokenizer)
        ranks.wait()
        claim(folder, config, data)
        if ranks.first:
            give_vectors(model, config, dataset, folder)
        ranks.wait()
        if not ranks.first:
            give_vectors(model, config, dataset, folder)
        give_ngram_weights(model, config.model, dataset)
        shift, scale = target_scale(dataset)
        model.head.shift.copy_(shift)
        model.head.scale.copy_(scale)
        watcher = watcher or Watcher()
        taught, lessons = dataset, None
        if config.distillation is not None:
            if ranks.world > 1:
                raise ConfigError(
                    "distillation: teachers are trained in one process: start one, or leave it out (null)"
                )
            taught, lessons = teach(config, dataset, folder, _teacher(watcher))
        Trainer(config, taught, model, folder, watcher, ranks=ranks, lessons=lessons).fit()
        ranks.wait()
        if not (folder / BEST).is_file():
            raise TrainingError(
                f"{folder} has lost {BEST}, or no epoch was good enough on dev to keep one: train in another "
                "folder, or delete this one"
            )
        if ranks.first:
            fresh = _fresh_model(config, data, first, words)
            finished = _finish(config, folder, data, dataset, fresh, device=ranks.device)
            if report:
                write_report(folder, baseline=baseline)
            hint = hint_of(dataset, finished.metrics)
            if hint is not None:
                watcher.note(hint)
        ranks.wait()
        return finished if ranks.first else load_run(folder)


def load_run(folder: Path) -> Run:
    """Read a finished training; the data itself is not needed.

    Raises:
        CheckpointError: If the folder is not a finished run, or is damaged.
    """
    if not (folder / METRICS).is_file():
        raise CheckpointError(
            f"{folder} is not a finished run: train it first, or resume it with coterie train"
        )
    config = load_config(RunConfig, source=folder / CONFIG)
    try:
        data = RunData.model_validate_json((folder / DATA).read_text(encoding="utf-8"))
        metrics = _METRICS.validate_python(json.loads((folder / METRICS).read_text(encoding="utf-8")))
        words = () if data.text is None else words_of((folder / TOKENIZER).read_text(encoding="utf-8"))
    except Exception as error:  # what cannot be read as a tokenizer raises no narrower one
        reason = "not what a training writes" if isinstance(error, ValidationError) else type(error).__name__
        raise CheckpointError(f"the run in {folder} is damaged ({reason}): train it again") from error
    model = _fresh_model(config, data, first_block_of(data.inputs), words)
    load_weights(model, folder / BEST)
    return Run(folder, config, data, model.eval(), metrics)


def _teacher(watcher: Watcher) -> Callable[[RunConfig, Path, Dataset], MultiTaskModel]:
    """Return what trains a teacher in its folder, unless it is trained already."""

    def trained(config: RunConfig, folder: Path, dataset: Dataset) -> MultiTaskModel:
        if (folder / METRICS).is_file():
            return load_run(folder).model
        watcher.teacher(config.name)
        return train(config, folder, dataset=dataset, watcher=watcher, report=False).model

    return trained


def _fresh_model(config: RunConfig, data: RunData, first: First, words: tuple[str, ...]) -> MultiTaskModel:
    return build_model(
        config.model,
        input=data.inputs,
        shape=data.shapes(words),
        tasks=data.tasks,
        first=first,
        seed=config.seed,
    )


def _check_paths(folder: Path, baseline: Path | None) -> None:
    for path in (folder, *folder.parents):
        if path.is_file():
            raise TrainingError(f"{path} is a file, not a folder: give another run folder")
    if baseline is not None:
        read_metrics(baseline)


def _check_epochs(config: RunConfig, model: MultiTaskModel, *, whose: str = "") -> None:
    """Refuse a training that ends before all its stages are ready.

    Raises:
        ConfigError: Naming the stage that takes longest.
    """
    last = max(model.each_stage(), key=lambda stage: stage.least_epochs)
    if config.trainer.epochs < last.least_epochs:
        raise ConfigError(
            "the training cannot start:",
            [
                f"{whose}trainer.epochs: is {config.trainer.epochs}, but stage {last.name!r} has its tasks "
                f"grouped after {last.least_epochs} epochs at the earliest: use at least {last.least_epochs}"
                ", or shorten the stages' warm-ups"
            ],
        )


def _finish(
    config: RunConfig,
    folder: Path,
    data: RunData,
    dataset: Dataset,
    model: MultiTaskModel,
    *,
    device: torch.device,
) -> Run:
    load_weights(model, folder / BEST)
    model.eval()
    loss = QuestionLoss(data.tasks, model.head.scale)
    model.to(device)
    scores: dict[str, Scores] = {
        name: evaluate(model, BatchSource(split, len(data.tasks), device=device), data.tasks, loss)
        for name, split in dataset.splits.items()
        if name != "train"
    }
    model.cpu()
    metrics = {name: each.tasks for name, each in scores.items()}
    inputs = dataset.splits["dev"].inputs
    chosen = np.arange(0, len(inputs), max(1, -(-len(inputs) // _SAMPLES)))
    arrays = map(np.ascontiguousarray, each(inputs.batch(chosen)))
    write_file(folder / SAMPLES, save(dict(zip(_sample_names(data.inputs), arrays, strict=True))))
    write_text(folder / PLAN, model.plan().model_dump_json(indent=1))
    # The last one: with it the run has ended.
    write_text(folder / METRICS, json.dumps(metrics, indent=1))
    return Run(folder, config, data, model, metrics)


def _sample_names(inputs: tuple[TensorSpec, ...]) -> list[str]:
    """Return what the samples of each input are called in their file."""
    return ["inputs"] if len(inputs) == 1 else [spec.name for spec in inputs]


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)
