"""Soft sharing: each task its own block, and a price for being unlike."""

from __future__ import annotations

import pytest
import torch
from tests.training.making import LINEAR, model_of, questions, tasks

from coterie.training.stages import SoftStage


def soft(**options: object) -> SoftStage:
    model = model_of([{"kind": "soft", "block": LINEAR, **options}], tasks(4))
    return model.each_stage()[0]


def matrices(stage: SoftStage) -> list[torch.Tensor]:
    return [weight.detach() for weight in stage.bank.weights.values()]


def test_the_l2_price_is_the_squared_distance_to_the_tasks_mean() -> None:
    stage = soft(strength=0.3, alike=False)
    wanted = sum(((weight - weight.mean(0)) ** 2).sum() / 2 for weight in matrices(stage))
    torch.testing.assert_close(stage.penalty(), 0.3 * wanted)


def test_the_trace_norm_price_is_the_sum_of_the_singular_values_of_the_tasks_as_rows() -> None:
    stage = soft(penalty="trace_norm", strength=0.3, alike=False)
    wanted = sum(torch.linalg.svdvals(weight.flatten(1)).sum() for weight in matrices(stage))
    torch.testing.assert_close(stage.penalty(), 0.3 * wanted, rtol=1e-3, atol=1e-3)


def test_the_tucker_price_counts_every_unfolding() -> None:
    stage = soft(penalty="tucker", strength=1.0, alike=False)
    wanted = sum(
        torch.linalg.svdvals(weight.movedim(axis, 0).flatten(1)).sum()
        for weight in matrices(stage)
        for axis in range(weight.dim())
    )
    torch.testing.assert_close(stage.penalty(), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("penalty", ["l2", "trace_norm", "tucker"])
def test_the_price_alone_takes_out_what_tasks_do_not_share(penalty: str) -> None:
    stage = soft(penalty=penalty, strength=1.0, alike=False)
    optimizer = torch.optim.SGD(stage.parameters(), lr=0.02)
    before, rows = stage.penalty().item(), stage.bank.flat()
    for _ in range(40):
        optimizer.zero_grad()
        stage.penalty().backward()
        optimizer.step()
    assert stage.penalty().item() < 0.7 * before
    if penalty == "l2":
        torch.testing.assert_close(stage.bank.flat().mean(0), rows.mean(0))  # the mean itself stays
    else:
        # What the tasks have in common outlives what they have not: the rest is gone first.
        values, old = torch.linalg.svdvals(stage.bank.flat()), torch.linalg.svdvals(rows)
        assert values[-1] / values[0] < old[-1] / old[0]


@pytest.mark.parametrize("penalty", ["l2", "trace_norm", "tucker"])
def test_tasks_that_start_alike_have_a_finite_gradient(penalty: str) -> None:
    stage = soft(penalty=penalty, strength=1.0, alike=True)
    assert stage.report()["spread"] == pytest.approx(0, abs=1e-6)
    stage.penalty().backward()
    for parameter in stage.parameters():
        assert torch.isfinite(parameter.grad).all()


def test_each_task_keeps_its_own_block_at_the_freeze() -> None:
    model = model_of([{"kind": "soft", "block": LINEAR, "alike": False}], tasks(4)).eval()
    plan = model.plan().stages[0]
    assert plan.kind == "soft"
    assert plan.assignment().tolist() == [0, 1, 2, 3]
    row, task = questions(9, 5, 4)
    inputs = torch.randn(5, 6)
    torch.testing.assert_close(model.freeze()(inputs, row, task), model(inputs, row, task).detach())


def test_a_strength_of_nothing_costs_nothing() -> None:
    assert soft(strength=0.0, alike=False).penalty().item() == 0
