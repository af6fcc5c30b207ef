from __future__ import annotations

import importlib.util
import sys
from typing import Any

import numpy as np
import pytest
import torch
from tests.training.making import LINEAR, dataset_of, model_of, task, tasks

from coterie.runtime.errors import ConfigError, TrainingError
from coterie.runtime.tasks import TaskSpec
from coterie.training import Dataset, MultiTaskModel
from coterie.training.draws import BaselineTracker
from coterie.training.loop.balancing import GradientSurgery, UncertaintyLoss
from coterie.training.loop.batches import BatchSource
from coterie.training.loop.gradients import BatchGradient
from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.objective import Objective
from coterie.training.loop.ranks import Ranks

ALONE = Ranks(torch.device("cpu"))
STAGES = [{"kind": "hard", "name": "trunk", "block": LINEAR}, {"kind": "specific", "block": LINEAR}]


def gradients(
    data: Dataset, stages: list[dict[str, Any]], name: str | None, *, parts: int = 1
) -> tuple[MultiTaskModel, dict[str, torch.Tensor]]:
    model = model_of(stages, data.tasks)
    surgery = None if name is None else GradientSurgery(name, model, ALONE)  # type: ignore[arg-type]
    source, gates = BatchSource(data.splits["train"], len(data.tasks)), torch.Generator()
    loss = QuestionLoss(data.tasks, model.head.scale)
    objective = Objective(model, loss, gates, BaselineTracker(len(data.tasks)))
    gradient = BatchGradient(objective, source, gates=gates, parts=parts, surgery=surgery, ranks=ALONE)
    gradient(np.arange(source.questions), list(model.parameters()), 0)
    return model, {
        name: torch.zeros_like(each) if each.grad is None else each.grad
        for name, each in model.named_parameters()
    }


def opposed(specs: list[TaskSpec], answers: list[list[int]]) -> Dataset:
    """One answer a task to each of some inputs."""
    inputs = np.random.default_rng(0).standard_normal((len(answers[0]), 6))
    row = np.tile(np.arange(len(answers[0])), len(answers))
    number = np.repeat(np.arange(len(answers)), len(answers[0]))
    return dataset_of(specs, inputs, row, number, np.concatenate(answers)[:, None])


CONFLICT = opposed(tasks(3), [[0, 1, 0, 1, 1], [1, 0, 1, 0, 0], [0, 1, 1, 1, 1]])


def shared(found: dict[str, torch.Tensor]) -> torch.Tensor:
    """The gradient of the trunk, which all tasks share, as one row."""
    return torch.cat([each.flatten() for name, each in found.items() if name.startswith("stages.0.")])


def jacobian_of(stages: list[dict[str, Any]]) -> torch.Tensor:
    """The trunk's gradient for each task alone, ``[T, P]``."""
    split, rows = CONFLICT.splits["train"], []
    for number in range(len(CONFLICT.tasks)):
        chosen = split.of_task(number)
        data = dataset_of(
            CONFLICT.tasks, split.inputs.values, split.row[chosen], split.task[chosen], split.target[chosen]
        )
        rows.append(shared(gradients(data, stages, None)[1]))
    return torch.stack(rows)


@pytest.mark.parametrize("parts", [1, 2, 9])
def test_pcgrad_takes_conflicts_out_of_the_shared_weights_only(parts: int) -> None:
    _, plain = gradients(CONFLICT, STAGES, None)
    _, found = gradients(CONFLICT, STAGES, "pcgrad", parts=parts)
    for name in plain:
        same = torch.allclose(found[name], plain[name], rtol=1e-4, atol=1e-6)
        # Stage 0 is the trunk; the specific layer and the heads are nobody else's.
        assert same == (not name.startswith("stages.0.")), name
    # The mean of g_t, each without what points against another task's gradient, helps every task more.
    jacobian = jacobian_of(STAGES)
    assert (jacobian @ jacobian.T).min() < 0
    assert (jacobian @ shared(found)).min() > (jacobian @ shared(plain)).min()


def test_tasks_that_agree_keep_the_ordinary_gradient() -> None:
    same = opposed(tasks(3), [[0, 1, 0, 1, 1]] * 3)
    plain = gradients(same, STAGES[:1], None)[1]
    found = gradients(same, STAGES[:1], "pcgrad")[1]
    for name, gradient in plain.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_aligned_mtl_goes_another_way() -> None:
    plain, found = (gradients(CONFLICT, STAGES[:1], each)[1] for each in (None, "alignedmtl"))
    assert torch.isfinite(shared(found)).all()
    assert not torch.allclose(shared(found), shared(plain))


@pytest.mark.parametrize("name", ["mgda", "imtlg", "upgrad"])
def test_other_aggregators_do_no_task_harm(name: str) -> None:
    plain, found = (gradients(CONFLICT, STAGES[:1], each)[1] for each in (None, name))
    assert not torch.allclose(shared(found), shared(plain))
    # A step against the gradient lowers a task's loss where it points the same way as the task's own.
    assert (jacobian_of(STAGES[:1]) @ shared(found)).min() >= -1e-6


@pytest.mark.skipif(importlib.util.find_spec("cvxpy") is not None, reason="the solver is installed")
@pytest.mark.parametrize("name", ["cagrad", "nashmtl"])
def test_a_missing_solver_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"trainer.balancing: {name}: .*cvxpy.*pip install"):
        GradientSurgery(name, model_of(STAGES, tasks(2)), ALONE)  # type: ignore[arg-type]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(ConfigError, match=r"pip install 'coterie\[balance\]'"):
        GradientSurgery("pcgrad", model_of(STAGES, tasks(2)), ALONE)


def test_a_direction_that_is_no_number_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GradientSurgery, "_weigh", lambda _self, rows, _seed: rows[:, 0] * torch.nan)
    with pytest.raises(TrainingError, match="no common direction of 3 tasks"):
        gradients(CONFLICT, STAGES, "pcgrad")


# ---- uncertainty


def test_log_variances_are_those_of_the_tasks_noise() -> None:
    specs = (task("quiet", "regression", 1), task("loud", "regression", 1), task("class"))
    loss = UncertaintyLoss(QuestionLoss(specs, torch.ones(3, 2)), specs, torch.device("cpu"))
    noise = (
        torch.randn(3000, 1, generator=torch.Generator().manual_seed(0))
        * torch.tensor([0.1, 2.0, 0]).repeat(1000)[:, None]
    )
    number, target = (
        torch.arange(3).repeat(1000),
        noise.masked_fill(torch.arange(3).repeat(1000)[:, None] == 2, 1.0),
    )
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        losses, labelled = loss(torch.zeros(3000, 2), target, number)
        losses.mean().backward()
        optimizer.step()
    assert bool(labelled.all())
    wanted = [2 * np.log(0.1), 2 * np.log(2.0), np.log(2 * np.log(2))]
    assert loss.log_variance.tolist() == pytest.approx(wanted, abs=0.1)
