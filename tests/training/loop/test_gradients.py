"""A batch computed in parts has the gradient of the whole batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.training.making import LINEAR, dataset_of, model_of, no_moments, task

from coterie.training import MultiTaskModel
from coterie.training.draws import BaselineTracker
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.gradients import BatchGradient, seed_of
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.objective import Objective
from coterie.training.loop.ranks import Ranks

GATED = {"kind": "gated", "name": "experts", "experts": 3, "density_penalty": 0.1, "block": LINEAR}
CLUSTER = {"kind": "cluster", "name": "layer", "clusters": 2, "warmup": 0, "pull": 0.5, "block": LINEAR}
STAGES = [{"kind": "hard", "block": LINEAR}, GATED, CLUSTER]
SPECS = [task("a"), task("b", width=3), task("c", "regression", 1), task("d")]
ROWS = 11


def source() -> BatchSource:
    """Inputs with one to four questions each, some without an answer, weights of all sizes."""
    generator = np.random.default_rng(0)
    row = np.concatenate([np.arange(ROWS), generator.integers(ROWS, size=20)])
    number = generator.integers(4, size=len(row))
    target = generator.integers(2, size=(len(row), 1)).astype(float)
    target[generator.random(len(row)) < 0.2] = np.nan
    weight = generator.random(len(row)).astype(np.float32)
    data = dataset_of(SPECS, generator.standard_normal((ROWS, 6)), row, number, target, weight=weight)
    return BatchSource(data.splits["train"], 4)


def model() -> MultiTaskModel:
    made = model_of(STAGES, SPECS)
    with torch.no_grad():
        for each in made.parameters():
            each.add_(torch.randn(each.shape, generator=torch.Generator().manual_seed(1)), alpha=0.1)
    made.train()
    for stage in made.each_stage():
        stage.begin_epoch(0, no_moments())
        stage.after_step(0, 0, no_moments())
    return made


def gradients(parts: int, **options: Any) -> tuple[dict[str, torch.Tensor], tuple[float, float]]:
    trained, batches, gates = model(), source(), torch.Generator()
    loss = QuestionLoss(SPECS, trained.head.scale)
    objective = Objective(trained, loss, gates, BaselineTracker(4), **options)
    gradient = BatchGradient(objective, batches, gates=gates, parts=parts, ranks=Ranks(torch.device("cpu")))
    questions = np.arange(batches.questions)
    values = gradient(questions, list(trained.parameters()), seed_of(0, 1, 2))
    found = {name: each.grad for name, each in trained.named_parameters() if each.grad is not None}
    return found, values


@pytest.mark.parametrize("parts", [2, 3, ROWS, ROWS + 5])
@pytest.mark.parametrize("estimator", ["local", "leave_one_out", "disarm"])
def test_parts_have_the_gradient_of_the_whole(parts: int, estimator: str) -> None:
    whole, (loss, objective) = gradients(1, estimator=estimator)
    found, values = gradients(parts, estimator=estimator)
    assert values == pytest.approx((loss, objective), rel=1e-5)
    assert found.keys() == whole.keys()
    assert any("logits" in name for name in whole)
    for name, gradient in whole.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_every_batch_has_gates_of_its_own_and_the_same_again_for_the_same_seed() -> None:
    assert seed_of(0, 1, 2) == seed_of(0, 1, 2)
    assert (
        len({seed_of(seed, epoch, step) for seed in range(3) for epoch in range(3) for step in range(9)})
        == 81
    )
