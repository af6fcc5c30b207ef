"""Models of which some blocks can be int8 and others cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from tests.exporter.making import Maker, task

from coterie.exporter import Reference
from coterie.runtime.manifest import TensorSpec
from coterie.training.blocks import InputShape, LinearConfig
from coterie.training.frozen import FrozenModel

WIDTH = 128
_LARGE = 1000.0


def large_feature(tasks: str) -> FrozenModel:
    """Return a model over inputs whose first feature is far larger than the others.

    Task "steady" has a block that looks at the first feature alone, task "fragile" one that looks at all
    others: with one scale for a row, these round to nothing in int8. Task "both" uses both.
    """
    torch.manual_seed(20)
    specs = tuple(task(name) for name in tasks.split())
    block = LinearConfig(width=WIDTH, activation="tanh").build(InputShape(dims=(WIDTH,)))
    # "both" uses all blocks but has none.
    alone = [name for name in tasks.split() if name != "both"]
    everything = dict.fromkeys(range(len(alone)), 1.0)
    uses = [{alone.index(name): 1.0} if name in alone else everything for name in tasks.split()]
    model = (
        Maker(specs, TensorSpec(name="inputs", dtype="float32", shape=(None, WIDTH)))
        .bank("own", "gated", block, uses)
        .heads(WIDTH)
    )
    for name, tensors in zip(alone, model.banks[0].tensors, strict=True):
        (weight,) = (tensor for tensor in tensors.values() if tensor.dim() == 2)
        if name == "fragile":
            weight[:, 0] = 0.0
            weight *= 0.2
        else:
            weight[:, 1:] = 0.0
            weight /= _LARGE
    return model


def inputs(rows: int) -> np.ndarray:
    """Return inputs of such a model."""
    values = np.random.default_rng(3).standard_normal((rows, WIDTH)).astype(np.float32)
    values[:, 0] *= _LARGE
    return values


def agreement(model: FrozenModel, rows: int = 200) -> Callable[[Reference], Mapping[str, float]]:
    """Return a measure: for each task the share of inputs about which a model says what this one says."""
    asked, count = torch.from_numpy(inputs(rows)), len(model.tasks)
    row, number = torch.arange(rows).repeat(count), torch.arange(count).repeat_interleave(rows)
    wanted = model(asked, row, number).argmax(1)

    def measure(answer: Reference) -> Mapping[str, float]:
        same = (answer(asked, row, number).argmax(1) == wanted).reshape(count, rows)
        return {spec.name: float(same[index].float().mean()) for index, spec in enumerate(model.tasks)}

    return measure
