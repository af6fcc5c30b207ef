"""A gated layer and the heads computed together answer, and learn, as they do one by one."""

from __future__ import annotations

import pytest
import torch
from tests.training.making import model_of, task
from torch import Tensor

import coterie.training.model as module
from coterie.training import MultiTaskModel
from coterie.training.draws import DisarmDraw, Draw, LeaveOneOutDraw, LocalDraw, ScoreDraw
from coterie.training.loop.losses import QuestionLoss

STATES, TASKS = 6, [task("two", width=2), task("three", width=3), task("two more", width=2)]
ESTIMATORS = ["score", "leave_one_out", "disarm", "local"]


def made(gates: str = "learned", *, open_share: float = 0.5) -> MultiTaskModel:
    """A gated layer of five experts and the heads."""
    block = {"kind": "mlp", "widths": [4, 3], "activation": "tanh"}
    found = model_of([{"kind": "gated", "experts": 5, "gates": gates, "block": block}], TASKS, size=3, seed=4)
    torch.manual_seed(5)
    with torch.no_grad():
        gate = found.gated_stages()[0].gate
        middle = torch.logit(torch.tensor(open_share))
        gate.logits.copy_(middle + torch.randn(gate.logits.shape) * (0.5 if open_share == 0.5 else 0.1))
        found.head.scale.copy_(torch.rand_like(found.head.scale) + 0.5)
        found.head.shift.copy_(torch.rand_like(found.head.shift))
    return found.train()


def draw_of(name: str, questions: int) -> Draw:
    """The draw of an estimator."""
    generator = torch.Generator().manual_seed(3)
    match name:
        case "local":
            return LocalDraw(generator, questions, 5)
        case "disarm":
            return DisarmDraw(generator, questions, samples=4)
        case "leave_one_out":
            return LeaveOneOutDraw(generator, questions, samples=3)
    return ScoreDraw(generator, questions)


def learned(model: MultiTaskModel, name: str, row: Tensor, number: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The losses ``[S, Q]``, and all gradients of what the trainer minimises."""
    draw = draw_of(name, len(row))
    sets = draw.samples
    inputs = torch.randn(STATES, 3, generator=torch.Generator().manual_seed(1))
    scores = model(inputs, row.repeat(sets), number.repeat(sets), draw)
    target = (number + row).remainder(2).float().unsqueeze(1)
    losses, _ = QuestionLoss(TASKS, model.head.scale)(scores, target.repeat(sets, 1), number.repeat(sets))
    losses = losses.reshape(sets, -1)
    model.zero_grad()
    (losses[0].mean() + draw.surrogate(losses, torch.ones(len(row)), number)).backward()
    return losses.detach(), [
        torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in model.parameters()
    ]


def asked(share: float) -> tuple[Tensor, Tensor]:
    """About that share of all possible questions, in any order."""
    order = torch.randperm(STATES * len(TASKS), generator=torch.Generator().manual_seed(2))
    chosen = order[: round(share * len(order))]
    return chosen // len(TASKS), chosen % len(TASKS)


@pytest.mark.parametrize("open_share", [0.5, 0.1])
@pytest.mark.parametrize("share", [1.0, 0.7])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_gated_layer_and_heads_in_one_learn_as_one_by_one(
    name: str, share: float, open_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, (row, number) = made(open_share=open_share), asked(share)
    together = learned(model, name, row, number)
    monkeypatch.setattr(module, "scored", lambda *_: None)
    apart = learned(model, name, row, number)
    torch.testing.assert_close(together, apart)


@pytest.mark.parametrize("gates", ["all", "softmax", "dselect_k"])
def test_gates_that_draw_nothing_do_so_too(gates: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (row, number) = made(gates), asked(1.0)
    together = learned(model, "score", row, number)
    monkeypatch.setattr(module, "scored", lambda *_: None)
    torch.testing.assert_close(together, learned(model, "score", row, number))


@pytest.mark.parametrize(
    ("row", "number"),
    [([0, 1, 2, 3], [0, 1, 2, 0]), ([0] * 18, [1] * 18)],
    ids=["few of the questions", "the same question often"],
)
def test_other_questions_are_answered_one_by_one(
    row: list[int], number: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = []
    scored = module.scored
    monkeypatch.setattr(module, "scored", lambda *given: answers.append(scored(*given)) or answers[-1])
    learned(made(), "score", torch.tensor(row), torch.tensor(number))
    assert answers == [None]
