"""Small models, data sets and configurations for the tests of training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coterie.runtime.manifest import TensorSpec
from coterie.runtime.tasks import TaskSpec
from coterie.training import Dataset, ModelConfig, MultiTaskModel, RunConfig, Watcher, build_model
from coterie.training.bank import Bank
from coterie.training.blocks import Block, InputShape, LinearConfig
from coterie.training.data import DenseInputs, Split
from coterie.training.moments import Moments
from coterie.training.yaml_config import load_config

LINEAR = {"kind": "linear", "width": 6, "activation": "tanh"}
"""A block that keeps 6 features."""


def task(name: str, kind: str = "classification", width: int = 2) -> TaskSpec:
    return TaskSpec(name=name, kind=kind, labels=tuple(f"label {index}" for index in range(width)))


def tasks(count: int) -> list[TaskSpec]:
    """Tasks of two classes."""
    return [task(f"task {index}") for index in range(count)]


def features(size: int) -> TensorSpec:
    return TensorSpec(name="inputs", dtype="float32", shape=(None, size))


def model_of(
    stages: Sequence[Mapping[str, Any]],
    specs: Sequence[TaskSpec],
    *,
    size: int = 6,
    seed: int = 0,
    head: Mapping[str, Any] | None = None,
    first: Block | None = None,
) -> MultiTaskModel:
    """Build a model on vectors of ``size`` features."""
    config = load_config(ModelConfig, source={"stages": list(stages), "head": dict(head or {})})
    shape = InputShape(dims=(size,))
    return build_model(config, input=features(size), shape=shape, tasks=specs, seed=seed, first=first)


def linear_bank(blocks: int, *, size: int = 4, width: int = 3, alike: bool = False, **options: Any) -> Bank:
    config = LinearConfig(width=width, **options)
    return Bank(lambda: config.build(InputShape(dims=(size,))), blocks, alike=alike)


def no_moments(parameters: Sequence[torch.nn.Parameter] = ()) -> Moments:
    """Moments of an optimiser that has made no step."""
    return Moments(torch.optim.SGD(list(parameters) or [torch.nn.Parameter(torch.zeros(1))], lr=0.1))


def questions(count: int, rows: int, number_of_tasks: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random rows and tasks of questions, both ``[B]``."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randint(rows, (count,), generator=generator)
    return row, torch.randint(number_of_tasks, (count,), generator=generator)


def run_config(
    stages: Sequence[Mapping[str, Any]],
    *,
    data: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    seed: int = 0,
    **trainer: Any,
) -> RunConfig:
    """A training on planted data of 6 tasks, small enough for a fraction of a second."""
    planted = {
        "kind": "planted",
        "tasks": 6,
        "features": 6,
        "width": 6,
        "outputs": 2,
        "train_rows": 24,
        "dev_rows": 12,
        "test_rows": 6,
        "clusters": [2],
    }
    return load_config(
        RunConfig,
        source={
            "seed": seed,
            "data": planted | dict(data or {}),
            "model": {"stages": list(stages), **(model or {})},
            "trainer": {"epochs": 5, "batch_size": 48, "lr": 1e-2, "threads": 1} | trainer,
        },
    )


def dataset_of(
    specs: Sequence[TaskSpec],
    inputs: np.ndarray,
    row: Sequence[int],
    number: Sequence[int],
    target: np.ndarray,
    *,
    weight: np.ndarray | None = None,
) -> Dataset:
    """A data set whose train and dev splits are the same."""
    split = Split(
        inputs=DenseInputs(inputs.astype(np.float32)),
        row=np.asarray(row, dtype=np.int64),
        task=np.asarray(number, dtype=np.int64),
        target=target.astype(np.float32),
        weight=weight,
    )
    return Dataset(
        inputs=(features(inputs.shape[1]),),
        tasks=tuple(specs),
        splits={"train": split, "dev": split},
        sha256="0" * 64,
    )


def count_rows(bank: Bank) -> list[int]:
    """Run a bank's blocks in turn; return a list that grows by the number of rows whenever one is run."""
    seen: list[int] = []
    bank.template.batched = False
    bank.template.register_forward_hook(lambda _module, inputs, _result: seen.append(len(inputs[0])))
    return seen


def slow_answer(
    forward: Callable[[int, Tensor], Tensor], inputs: Tensor, row: Tensor, number: Tensor
) -> Tensor:
    """Answer question by question: ``forward(task, input [1, ...])``."""
    pairs = zip(row.tolist(), number.tolist(), strict=True)
    return torch.cat([forward(each, inputs[index : index + 1]) for index, each in pairs])


class StopError(Exception):
    """The training is killed."""


class Killer(Watcher):
    """Ends a training after some batches."""

    def __init__(self, batches: int) -> None:
        self.left = batches

    def batch(self, **_: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise StopError
