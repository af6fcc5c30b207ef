"""What the training data says about scales: the first block's statistics, the regression targets' spread."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from coterie.runtime.manifest import TensorSpec
from coterie.training.blocks import Block, ImageInput, Standardise
from coterie.training.data import Dataset, Inputs, JoinedInputs
from coterie.training.several import each, only

_SAMPLE = 20_000
_LEAST = 1e-30
"""Less than that float32 can hardly divide by."""

First = Block | None | tuple[Block | None, ...]
"""A model's first block, or the first one of each of its inputs."""


def first_block(dataset: Dataset) -> First:
    """Return the block that standardises inputs by the train split's statistics; none for text."""
    inputs = dataset.splits["train"].inputs
    members = inputs.members if isinstance(inputs, JoinedInputs) else (inputs,)
    return only(tuple(_standardising(spec, own) for spec, own in zip(dataset.inputs, members, strict=True)))


def _standardising(spec: TensorSpec, inputs: Inputs) -> Block | None:
    if spec.dtype == "int64":
        return None
    # Every so many rows: enough for a mean, and the same rows at every call.
    rows = np.arange(0, len(inputs), max(1, len(inputs) // _SAMPLE))
    (batch,) = each(inputs.batch(rows))
    values = batch.astype(np.float64)
    axes = (0, 1, 2) if spec.dtype == "uint8" else (0,)
    deviation = values.std(axis=axes)
    mean = values.mean(axis=axes)
    # A constant feature stays as it is, rather than being divided by nothing.
    scale = 1 / np.where(_varies(mean, deviation), deviation, 1.0)
    return _block(spec, torch.from_numpy(mean), torch.from_numpy(scale))


def first_block_of(inputs: tuple[TensorSpec, ...]) -> First:
    """Return that block with neutral statistics: images still become numbers, channels first."""
    return only(tuple(_neutral(spec) for spec in inputs))


def _neutral(spec: TensorSpec) -> Block | None:
    if spec.dtype == "int64":
        return None
    size = int(spec.shape[-1] or 1)
    return _block(spec, torch.zeros(size), torch.full((size,), 1 / 255 if spec.dtype == "uint8" else 1.0))


def target_scale(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each regression task's targets in the train split, both ``[N, C]``."""
    width = max(task.width for task in dataset.tasks)
    shift, scale = torch.zeros(len(dataset.tasks), width), torch.ones(len(dataset.tasks), width)
    split = dataset.splits["train"]
    for index, task in enumerate(dataset.tasks):
        if task.kind != "regression":
            continue
        target = split.target[split.task == index, : task.width].astype(np.float64)
        known = ~np.isnan(target)
        for column in range(task.width):
            values = target[known[:, column], column]
            if len(values):
                mean, deviation = values.mean(), values.std()
                shift[index, column] = float(mean)
                scale[index, column] = float(deviation) if _varies(mean, deviation) else 1.0
    return shift, scale


def _varies(mean: Any, deviation: Any) -> Any:
    """Return whether numbers of float32 vary by more than they are rounded, whatever their unit."""
    return deviation > np.maximum(_LEAST, 1e-7 * np.abs(mean))


def _block(spec: TensorSpec, mean: Tensor, scale: Tensor) -> Block:
    return ImageInput(mean, scale) if spec.dtype == "uint8" else Standardise(mean, scale)
