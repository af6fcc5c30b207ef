from __future__ import annotations

import pytest
import torch
from tests.training.making import task

from coterie.training.blocks import LinearHead
from coterie.training.dispatch import State
from coterie.training.stages import HeadStage

SPECS = [task("a", width=2), task("b", width=5), task("c", "multilabel", 2), task("d", "regression", 1)]


def head_of(*, alike: bool = False, init_scale: float = 1.0) -> HeadStage:
    torch.manual_seed(0)
    head = HeadStage("head", 3, SPECS, alike=alike, init_scale=init_scale)
    with torch.no_grad():
        head.shift[3, 0], head.scale[3, 0] = 10.0, 4.0
    return head


def ask(head: HeadStage, states: torch.Tensor, number: list[int]) -> torch.Tensor:
    return head(State(states, torch.arange(len(number))), torch.tensor(number, dtype=torch.int64)).values


def test_each_task_has_as_many_scores_as_outputs_and_zeros_after_them() -> None:
    head, states = head_of(), torch.randn(6, 3)
    scores = ask(head, states, [3, 1, 0, 2, 1, 0])
    assert scores.shape == (6, 5)
    for question, number in enumerate([3, 1, 0, 2, 1, 0]):
        width = SPECS[number].width
        assert (scores[question, :width] != 0).all()
        assert (scores[question, width:] == 0).all()


def test_frozen_heads_answer_alike_with_the_targets_scale_folded_in() -> None:
    head, states = head_of(), torch.randn(4, 3)
    scores = ask(head, states, [0, 1, 2, 3])
    bank = head.frozen_bank()
    for number, spec in enumerate(SPECS):
        assert bank.tensors[number]["weight"].shape == (3, spec.width)
        torch.testing.assert_close(
            bank.run(number, states[number : number + 1])[0], scores[number, : spec.width]
        )


def test_a_regressions_scores_are_in_the_targets_own_units() -> None:
    head, state = head_of(), torch.randn(1, 3)
    plain = ask(head, state, [3])
    with torch.no_grad():
        head.shift.zero_()
        head.scale.fill_(1.0)
    torch.testing.assert_close(plain[0, 0], 10 + 4 * ask(head, state, [3])[0, 0])


def test_each_question_gives_its_own_head_alone_a_gradient() -> None:
    head, states = head_of(), torch.randn(3, 3)
    ask(head, states, [0, 2, 2]).sum().backward()
    group, member = int(head.group[0]), int(head.member[0])
    weight = head.weights[group].grad
    torch.testing.assert_close(weight[member], states[:1].T.expand(3, 2))
    torch.testing.assert_close(weight[int(head.member[2])], states[1:].sum(0).unsqueeze(1).expand(3, 2))
    others = [each for index, each in enumerate(head.weights) if index != group]
    assert all(each.grad is None for each in others)


def test_alike_heads_of_one_width_start_the_same() -> None:
    alike, unlike = head_of(alike=True), head_of()
    number = int(alike.group[0])
    assert torch.equal(alike.weights[number][0], alike.weights[number][1])
    assert not torch.equal(unlike.weights[number][0], unlike.weights[number][1])
    torch.testing.assert_close(head_of(init_scale=0.1).weights[0], 0.1 * unlike.weights[0])


def test_the_plan_gives_each_task_its_head() -> None:
    plan = head_of().plan()
    assert plan.assignment().tolist() == [0, 1, 2, 3]
    assert [block.parameters for block in plan.blocks] == [4 * spec.width for spec in SPECS]


def test_making_a_frozen_bank_draws_no_random_numbers() -> None:
    head = head_of()
    before = torch.get_rng_state()
    assert isinstance(head.frozen_bank().template, LinearHead)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("count", [0, 1])
def test_few_questions_are_legal(count: int) -> None:
    assert ask(head_of(), torch.zeros(count, 3), [0] * count).shape == (count, 5)


@pytest.mark.parametrize("dims", [(3,), (2, 3)])
def test_states_that_many_questions_read_are_answered_as_for_each_alone(dims: tuple[int, ...]) -> None:
    head, states = head_of(), torch.randn(2, *dims)
    position, number = torch.tensor([1, 0] * 6), torch.tensor([3, 1, 0, 2, 1, 0, 2, 3, 0, 1, 3, 2])
    together = head(State(states, position), number).values
    for question in range(12):
        own = head(
            State(states[position[question]].unsqueeze(0), torch.tensor([0])), number[question : question + 1]
        )
        torch.testing.assert_close(together[question], own.values[0])
