"""Teachers: models trained first, whose answers a run learns from beside its labels, or in their place.

A question without an answer is asked of every teacher, and their mean answer is what the model learns
(self-training with an ensemble; Hinton et al. 2015; Xie et al. 2020, "Self-training with Noisy Student").
So it learns from more than somebody labelled, and what unlike models know together ends up in a small one.

run/teachers/0, ...     runs of their own, until the answers are there
run/teachers.safetensors    the answers, for when the training is resumed
run/teachers.json       what each teacher scored on dev, and all of them together
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import Tensor

from coterie.runtime.durable import write_file, write_text
from coterie.runtime.errors import CheckpointError, ConfigError
from coterie.training.config import RunConfig, TeacherConfig
from coterie.training.data import Dataset, Split, join_splits
from coterie.training.loop.batches import Batch, BatchSource
from coterie.training.loop.evaluate import answer_all
from coterie.training.loop.lessons import Lessons, as_answers
from coterie.training.loop.metrics import task_metrics
from coterie.training.model import MultiTaskModel

FOLDER, ANSWERS, SCORES = "teachers", "teachers.safetensors", "teachers.json"

_SEEDS = 1000
"""Between the seed of a run and that of each of its teachers: runs of neighbouring seeds share none."""

Train = Callable[[RunConfig, Path, Dataset], MultiTaskModel]
"""Trains a configuration in a folder, or goes on with it; or reads it, when it is finished."""


def teach(config: RunConfig, dataset: Dataset, folder: Path, train: Train) -> tuple[Dataset, Lessons | None]:
    """Have the configured teachers answer the questions of the train split, and those without an answer.

    Args:
        config: Of the run.
        dataset: Its data.
        folder: Its folder, where the teachers are trained and their answers kept.
        train: Trains one of them.

    Returns:
        The data set, the questions without an answer now in its train split, and what teachers say to all of
        them. Without questions for teachers (every one has a label, and ``labelled`` is 0) nothing changes.

    Raises:
        ConfigError: If a task is one that a teacher cannot answer for.
        CheckpointError: If the kept answers are damaged.
    """
    settings, split = config.distillation, dataset.splits["train"]
    if dataset.unanswered is not None:
        split = join_splits([split, dataset.unanswered])
    if settings is None or not (settings.labelled or np.isnan(split.target).all(axis=1).any()):
        return dataset, None
    taggings = [task.name for task in dataset.tasks if task.kind == "tagging"]
    if taggings:
        raise ConfigError(
            f"distillation: is not for taggings, but task {taggings[0]!r} is one: leave it out (null)"
        )
    path = folder / ANSWERS
    if not path.is_file():
        _ask_all(
            config,
            dataset,
            asked={"train": split, "dev": dataset.splits["dev"]},
            folder=folder,
            train=train,
        )
    try:
        answers = load_file(path)["answers"]
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: delete it, and it will be made again") from error
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    lessons = Lessons(answers=answers, weight=settings.weight, labelled=settings.labelled)
    return replace(dataset, splits={**dataset.splits, "train": split}), lessons


def _ask_all(
    config: RunConfig,
    dataset: Dataset,
    *,
    asked: Mapping[str, Split],
    folder: Path,
    train: Train,
) -> None:
    """Train every teacher that is not trained yet, and keep their mean answers."""
    # Teachers never see test data.
    seen = replace(dataset, splits={name: dataset.splits[name] for name in ("train", "dev")})
    teachers = teachers_of(config)
    totals: dict[str, np.ndarray] = {}
    scores = []
    for number, teacher in enumerate(teachers):
        model = train(teacher, folder / FOLDER / str(number), seen)
        found = {name: _answers(model, split) for name, split in asked.items()}
        scores.append(_score(found["dev"], seen))
        totals = {name: totals.get(name, 0) + array / len(teachers) for name, array in found.items()}
    record = {"dev": {"each": scores, "together": _score(totals["dev"], seen)}}
    write_text(folder / SCORES, json.dumps(record, indent=1))
    write_file(folder / ANSWERS, save({"answers": totals["train"].astype(np.float32)}))


def teachers_of(config: RunConfig) -> list[RunConfig]:
    """Return how each teacher of a run is trained, by its folder's number; none without distillation."""
    kinds = () if config.distillation is None else config.distillation.teachers
    each = [kind for kind in kinds for _ in range(kind.number)]
    return [_own(config, kind, number) for number, kind in enumerate(each)]


def _own(config: RunConfig, kind: TeacherConfig, number: int) -> RunConfig:
    return config.model_copy(
        update={
            "name": f"{config.name}-teacher{number}",
            "seed": config.seed + _SEEDS * (number + 1),
            "model": kind.model or config.model,
            "trainer": kind.trainer or config.trainer,
            "distillation": None,
        }
    )


def _answers(model: MultiTaskModel, split: Split) -> np.ndarray:
    """Return what a model answers to every question of a split, ``[Q, C]``."""

    def read(scores: Tensor, batch: Batch) -> Tensor:
        return as_answers(scores.float(), model.tasks, batch.task)

    with torch.no_grad():
        return answer_all(model.eval(), BatchSource(split, len(model.tasks)), read=read)


def _score(answers: np.ndarray, dataset: Dataset) -> float:
    """Return the mean over tasks of the metric that they are compared by, on dev."""
    split = dataset.splits["dev"]
    found = []
    for number, task in enumerate(dataset.tasks):
        asked = split.task == number
        metrics = task_metrics(task, answers[asked], split.target[asked])
        found += [metrics[task.metric]] if task.metric in metrics else []
    return float(np.mean(found)) if found else 0.0
