"""Cluster layers whose tasks' weights are in known groups."""

from __future__ import annotations

import torch
from tests.training.making import linear_bank, no_moments
from torch import Tensor
from torch.func import functional_call

from coterie.training.stages import ClusterStage

N, K = 6, 3
GROUPS = [0, 1, 2, 0, 1, 2]


def stage_of(
    truth: list[int] = GROUPS, *, clusters: int = K, noise: float = 0.05, **options: object
) -> ClusterStage:
    """A cluster layer whose tasks' weights are in known groups."""
    torch.manual_seed(0)
    stage = ClusterStage(
        "layer", len(truth), linear_bank(len(truth), alike=True), clusters=clusters, **options
    )
    with torch.no_grad():
        for weight in stage.bank.weights.values():
            means = torch.randn(max(truth) + 1, *weight.shape[1:])
            weight.copy_(means[truth] + noise * torch.randn(weight.shape))
    return stage


def clustered(truth: list[int] = GROUPS, **options: object) -> ClusterStage:
    stage = stage_of(truth, warmup=0, **options)
    stage.after_step(0, 0, no_moments())
    assert stage.clustered
    return stage


def run_with(stage: ClusterStage, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    named = {name.replace("/", "."): weight for name, weight in weights.items()}
    return functional_call(stage.bank.template, named, (inputs,))


def rows_of(stage: ClusterStage, task: int) -> dict[str, Tensor]:
    return {name: weight[task].detach() for name, weight in stage.bank.weights.items()}


def centroid_of(stage: ClusterStage, task: int) -> dict[str, Tensor]:
    """The mean of the weights of the tasks in one task's cluster."""
    members = [other for other in range(stage.tasks) if stage.labels[other] == stage.labels[task]]
    return {
        name: torch.stack([weight[other].detach() for other in members]).mean(0)
        for name, weight in stage.bank.weights.items()
    }
