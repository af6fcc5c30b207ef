from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.making import LINEAR, count_rows, linear_bank, model_of, no_moments, questions, tasks
from torch import Tensor
from torch.func import functional_call

from coterie.training.dispatch import State
from coterie.training.draws import Draw, ScoreDraw
from coterie.training.stages import GatedStage
from coterie.training.stages.gates import BernoulliGate, UngatedMixture

OPEN, CLOSED = 40.0, -40.0


def stage_of(logits: Tensor, **options: object) -> GatedStage:
    """A gated stage with given gate logits ``[N, M]``."""
    gate = BernoulliGate(*logits.shape)
    with torch.no_grad():
        gate.logits.copy_(logits)
    return GatedStage("experts", len(logits), linear_bank(logits.shape[1]), gate, **options)


def random_gates(number_of_tasks: int = 4, experts: int = 5) -> Tensor:
    """Gates that are open or closed for sure, at least one open for each task."""
    torch.manual_seed(2)
    gates = torch.rand(number_of_tasks, experts) < 0.4
    gates[torch.arange(number_of_tasks), torch.arange(number_of_tasks) % experts] = True
    return gates


def a_draw(questions: int, seed: int = 0) -> Draw:
    return ScoreDraw(torch.Generator().manual_seed(seed), questions)


def equation_1(stage: GatedStage, gates: Tensor, x: Tensor, task: int) -> Tensor:
    """z(t, x) = sum_i b_i(t) w_i(t) f_i(x), as printed."""
    total = torch.zeros(1, 3)
    for expert in range(stage.bank.blocks):
        feature = functional_call(stage.bank.template, stage.bank.tensors(expert), (x,))
        total = total + float(gates[task, expert]) * stage.gate.mixture[task, expert] * feature
    return total


@pytest.mark.parametrize("training", [True, False])
def test_a_question_gets_the_weighted_sum_of_its_experts(training: bool) -> None:
    gates = random_gates()
    stage = stage_of(torch.where(gates, OPEN, CLOSED)).train(training)
    inputs = torch.randn(3, 4)
    row, task = questions(11, rows=3, number_of_tasks=4)
    state = stage(State(inputs, row), task, a_draw(11) if training else None)
    wanted = torch.cat(
        [
            equation_1(stage, gates, inputs[r : r + 1], t)
            for r, t in zip(row.tolist(), task.tolist(), strict=True)
        ]
    )
    torch.testing.assert_close(state.values[state.position], wanted)


def test_an_expert_is_run_only_for_the_rows_it_was_drawn_for() -> None:
    gates = random_gates(number_of_tasks=4, experts=60)
    stage = stage_of(torch.where(gates, OPEN, CLOSED))
    rows = count_rows(stage.bank)
    task = torch.arange(12) % 4
    stage(State(torch.randn(12, 4), torch.arange(12)), task, a_draw(12))
    assert rows == [count for count in gates[task].sum(0).tolist() if count]


def test_the_rows_computed_grow_with_the_density_and_not_with_the_number_of_experts() -> None:
    def computed(experts: int, density: float) -> int:
        logit = torch.logit(torch.tensor(density / experts))
        stage = stage_of(logit.expand(4, experts))
        rows = count_rows(stage.bank)
        task = torch.arange(2000) % 4
        stage(State(torch.randn(2000, 4), torch.arange(2000)), task, a_draw(2000))
        return sum(rows)

    assert computed(10, 2.0) == pytest.approx(4000, rel=0.1)
    assert computed(80, 2.0) == pytest.approx(4000, rel=0.1)
    assert computed(80, 4.0) == pytest.approx(8000, rel=0.1)


def test_several_draws_for_one_input_run_an_expert_once() -> None:
    stage = stage_of(torch.full((2, 3), OPEN))
    rows = count_rows(stage.bank)
    stage(State(torch.randn(1, 4), torch.zeros(8, dtype=torch.int64)), torch.arange(8) % 2, a_draw(8))
    assert rows == [1, 1, 1]


def test_gates_are_drawn_for_each_question_from_its_tasks_probabilities() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.9], [0.7, 0.2, 0.4]])
    stage = stage_of(torch.logit(probabilities))
    with torch.no_grad():  # Each expert answers with its own power of two: a sum tells who was drawn.
        stage.gate.mixture.fill_(1.0)
        for name, weight in stage.bank.weights.items():
            weight.zero_()
            if name.endswith("bias"):
                weight.copy_(torch.tensor([1.0, 2.0, 4.0]).unsqueeze(1).expand_as(weight))
    task = torch.arange(4000) % 2
    draw = a_draw(4000)
    code = (
        stage(State(torch.zeros(1, 4), torch.zeros(4000, dtype=torch.int64)), task, draw).values[:, 0].long()
    )
    drawn = torch.stack([(code >> expert) & 1 for expert in range(3)], dim=1).float()
    for index in range(2):
        torch.testing.assert_close(drawn[task == index].mean(0), probabilities[index], atol=0.04, rtol=0)
    p = probabilities[task]
    wanted = torch.where(drawn > 0, p, 1 - p).log().sum(1)
    torch.testing.assert_close(draw.score[0], wanted)


def test_log_probabilities_add_up_over_gated_layers() -> None:
    draw = a_draw(6)
    state, task = State(torch.randn(6, 4), torch.arange(6)), torch.zeros(6, dtype=torch.int64)
    stage_of(torch.zeros(1, 3))(state, task, draw)
    stage_of(torch.zeros(1, 2))(state, task, draw)
    torch.testing.assert_close(draw.score, torch.full((1, 6), 5 * math.log(0.5)))


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.sampled_from([0.001, 0.2, 0.5, 0.5, 0.8, 0.99]), min_size=5, max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_equation_4_keeps_the_most_likely_experts_as_many_as_the_density(rows: list[list[float]]) -> None:
    stage = stage_of(torch.logit(torch.tensor(rows)))
    p = stage.probabilities().detach()
    for task, chosen in enumerate(stage.selection()):
        density = float(p[task].sum())
        assert abs(int(chosen.sum()) - max(1.0, density)) <= 0.5 + 1e-6
        if not chosen.all():
            assert p[task][chosen].min() >= p[task][~chosen].max()


def test_equally_likely_experts_are_taken_in_order() -> None:
    assert stage_of(torch.zeros(2, 7)).selection().sum() == 2 * 4  # 3.5 rounds to the even 4
    assert stage_of(torch.zeros(2, 4)).selection().tolist() == [[True, True, False, False]] * 2


def test_a_task_whose_gates_are_all_closed_still_has_its_likeliest_expert() -> None:
    logits = torch.full((2, 4), -30.0)
    logits[1, 2] = -29.0
    assert stage_of(logits).selection().tolist() == [[True, False, False, False], [False, False, True, False]]


def test_experts_start_unlike_and_gates_at_one_half() -> None:
    model = model_of([{"kind": "gated", "experts": 3, "block": LINEAR}], tasks(5))
    stage = model.gated_stages()[0]
    assert torch.equal(stage.probabilities(), torch.full((5, 3), 0.5))
    flat = stage.bank.flat()
    assert not any(torch.equal(flat[a], flat[b]) for a, b in [(0, 1), (0, 2), (1, 2)])
    assert stage.gate.mixture.std() > 0.3


def test_the_mean_mixture_starts_at_the_mean_of_the_experts_drawn() -> None:
    assert torch.equal(BernoulliGate(3, 4, probability=0.25, mixture="mean").mixture, torch.ones(3, 4))
    assert torch.equal(UngatedMixture(3, 4, mixture="mean").mixture, torch.full((3, 4), 0.25))


def test_the_penalty_is_lambda_times_the_mean_density_and_rises_in_the_warmup() -> None:
    probabilities = torch.tensor([[0.1, 0.5], [0.7, 0.2]])
    stage = stage_of(torch.logit(probabilities), density_penalty=0.3)
    assert stage.penalty().item() == pytest.approx(0.3 * 1.5 / 2)
    warming = stage_of(torch.logit(probabilities), density_penalty=0.3, density_warmup=4)
    found = []
    for epoch in range(6):
        warming.begin_epoch(epoch, no_moments())
        found.append(warming.penalty().item() / (0.3 * 0.75))
    assert found == pytest.approx([0.0, 0.25, 0.5, 0.75, 1.0, 1.0])


def test_without_gates_every_expert_is_mixed_always() -> None:
    stage = GatedStage("experts", 2, linear_bank(3), UngatedMixture(2, 3), density_penalty=1.0)
    inputs, task, draw = torch.randn(5, 4), torch.arange(5) % 2, a_draw(5)
    found = stage(State(inputs, torch.arange(5)), task, draw).values
    gates = torch.ones(2, 3)
    wanted = torch.cat([equation_1(stage, gates, inputs[i : i + 1], t) for i, t in enumerate(task.tolist())])
    torch.testing.assert_close(found, wanted)
    assert draw.score is None
    assert stage.penalty().item() == 0.0
    assert stage.gate_parameters() == []


def test_experts_that_no_task_keeps_are_not_in_the_plan() -> None:
    gates = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 1, 0]], dtype=torch.bool)
    stage = stage_of(torch.where(gates, OPEN, CLOSED))
    plan = stage.plan()
    assert [block.source for block in plan.blocks] == [0, 3]
    assert plan.trained_blocks == 5
    assert plan.uses == ((0, 1), (1,))
    wanted = torch.where(gates, stage.gate.mixture, 0.0)[:, [0, 3]].detach()
    torch.testing.assert_close(torch.from_numpy(plan.mixing_matrix()), wanted)
    assert plan.gate_probabilities is not None
    torch.testing.assert_close(torch.tensor(plan.gate_probabilities), gates.float())
    bank = stage.frozen_bank()
    assert len(bank.tensors) == 2
    assert torch.equal(bank.tensors[1]["layer.weight"], stage.bank.tensors(3)["layer.weight"])


def test_no_expert_drawn_is_a_state_of_zeros() -> None:
    stage = stage_of(torch.full((2, 3), CLOSED))
    state = stage(State(torch.randn(4, 4), torch.arange(4)), torch.arange(4) % 2, a_draw(4))
    assert torch.equal(state.values, torch.zeros(4, 3))
    nothing = torch.zeros(0, dtype=torch.int64)
    assert stage(State(torch.zeros(0, 4), nothing), nothing).values.shape == (0, 3)
