"""The optimiser: every stage at its own rate, the gates at theirs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from coterie.training.config import ModelConfig, TrainerConfig
from coterie.training.model import MultiTaskModel
from coterie.training.stages import HeadConfig, Stage, StageConfig

_CLASSES: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}
_BASE = "base_lr"


def make_optimizer(
    model: MultiTaskModel, trainer: TrainerConfig, config: ModelConfig, others: Sequence[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """Make the optimiser: a parameter group for each rate of a stage, and one for all gates and ``others``.

    Vectors (biases, mixture weights, an n-gram's weight) are not decayed: they scale, and do not overfit.
    """
    stages = model.each_stage()
    settings: list[StageConfig | HeadConfig | None] = [*config.stages, config.head]
    # The inputs' own stage has no rates of its own.
    settings = [*[None] * (len(stages) - len(settings)), *settings]
    groups: list[dict[str, Any]] = []
    for stage, rate in zip(stages, settings, strict=True):
        lr = (rate and rate.lr) or trainer.lr
        decay = trainer.weight_decay if rate is None or rate.weight_decay is None else rate.weight_decay
        for parameter, factor, is_matrix in _weights(stage):
            groups.append(
                {"params": [parameter], "lr": lr * factor, "weight_decay": decay if is_matrix else 0.0}
            )
    gates = [gate for stage in stages for gate in stage.gate_parameters()] + list(others)
    if gates:
        groups.append({"params": gates, "lr": trainer.gate_lr, "weight_decay": 0.0})
    for group in groups:
        group[_BASE] = group["lr"]
    options: dict[str, Any] = {"momentum": 0.9} if trainer.optimizer == "sgd" else {}
    # One pass over each parameter and its moments, where the default makes one for each operation.
    return _CLASSES[trainer.optimizer](groups, lr=trainer.lr, fused=True, **options)


def set_rates(optimizer: torch.optim.Optimizer, trainer: TrainerConfig, done: float) -> None:
    """Set every learning rate for a training of which a share ``done``, 0 to 1, is over."""
    factor = 1.0
    if trainer.schedule == "linear":
        factor = 1.0 - done
    elif trainer.schedule == "cosine":
        factor = 0.5 * (1.0 + math.cos(math.pi * done))
    for group in optimizer.param_groups:
        group["lr"] = group[_BASE] * factor


def _weights(stage: Stage) -> Iterator[tuple[nn.Parameter, float, bool]]:
    """Yield what a stage learns beside its gates: parameter, factor of its rate, whether it is a matrix."""
    gates = stage.gate_parameters()
    rates = stage.rates()
    for parameter in stage.parameters():
        if parameter.requires_grad and not any(parameter is gate for gate in gates):
            # The first axis counts blocks or tasks.
            yield parameter, rates.get(id(parameter), 1.0), parameter.dim() > 2
