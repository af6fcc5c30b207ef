"""The optimiser: every stage at its own rate, the gates at theirs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from coterie.training.config import ModelConfig, TrainerConfig
from coterie.training.model import MultiTaskModel

_CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def make_optimizer(model: MultiTaskModel, trainer: TrainerConfig, config: ModelConfig) -> torch.optim.Optimizer:
    """Make the optimiser with one parameter group a stage, and one for all gates."""
    stages = model.each_stage()
    rates = [*config.stages, config.head]
    first = len(stages) - len(rates)
    groups: list[dict[str, Any]] = []
    gates: list[nn.Parameter] = []
    for index, stage in enumerate(stages):
        own = stage.gate_parameters()
        gates += own
        weights = [
            parameter
            for parameter in stage.parameters()
            if parameter.requires_grad and not any(parameter is gate for gate in own)
        ]
        if not weights or index < first:
            continue
        rate = rates[index - first]
        groups.append(
            {
                "params": weights,
                "lr": rate.lr or trainer.lr,
                "weight_decay": trainer.weight_decay if rate.weight_decay is None else rate.weight_decay,
            }
        )
    if gates:
        groups.append({"params": gates, "lr": trainer.gate_lr, "weight_decay": 0.0})
    options: dict[str, Any] = {"momentum": 0.9} if trainer.optimizer == "sgd" else {}
    return _CLASSES[trainer.optimizer](groups, lr=trainer.lr, **options)
