"""Every way in which a task can choose among experts, from training to the plan."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.training.making import LINEAR, count_rows, model_of, questions, tasks

from coterie.runtime.errors import ConfigError
from coterie.training import MultiTaskModel, TrainerConfig
from coterie.training.dispatch import distinct_questions
from coterie.training.draws import Draw, LeaveOneOutDraw, LocalDraw, ScoreDraw
from coterie.training.loop.objective import cheapest
from coterie.training.stages.gates import (
    BernoulliGate,
    DSelectGate,
    Gate,
    RoutingGate,
    SoftmaxGate,
    TopKGate,
    UngatedMixture,
)
from coterie.training.yaml_config import load_config

N = 4
KINDS = ("learned", "all", "one", "topk", "dselect_k", "softmax")


def made(gates: str, experts: int = 5, **options: Any) -> MultiTaskModel:
    """A gated layer between a trunk and the heads, its gates' parameters drawn at random."""
    gated = {"kind": "gated", "gates": gates, "experts": experts, "block": LINEAR, **options}
    model = model_of([{"kind": "hard", "block": LINEAR}, gated], tasks(N), seed=2)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.gated_stages()[0].gate_parameters():
            parameter.normal_()
    return model


def a_draw(number: int, samples: int = 1) -> Draw:
    generator = torch.Generator().manual_seed(0)
    return (
        LeaveOneOutDraw(generator, number, samples=samples) if samples > 1 else ScoreDraw(generator, number)
    )


@pytest.mark.parametrize("own", [0, 2])
@pytest.mark.parametrize("gates", KINDS)
def test_a_frozen_model_answers_as_the_model_does(gates: str, own: int) -> None:
    model = made(gates, own=own).eval()
    inputs, (row, task) = torch.randn(4, 6), questions(25, rows=4, number_of_tasks=N)
    with torch.no_grad():
        found = model(inputs, row, task)
    torch.testing.assert_close(model.freeze()(inputs, row, task), found, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gates", KINDS)
def test_every_gate_learns(gates: str) -> None:
    model = made(gates).train()
    row, task = questions(24, rows=7, number_of_tasks=N)
    draw = a_draw(24, samples=2)
    scores = model(torch.randn(7, 6), row.repeat(2), task.repeat(2), draw)
    losses = scores.square().sum(1).reshape(2, -1)
    (losses[0].mean() + draw.surrogate(losses, torch.ones(24), task)).backward()
    stage = model.gated_stages()[0]
    learned = [each for each in stage.gate.parameters() if each.requires_grad]
    assert learned
    assert all(each.grad is not None and bool(each.grad.abs().sum() > 0) for each in learned)
    assert all(bool(each.grad.isfinite().all()) for each in model.parameters() if each.grad is not None)


@pytest.mark.parametrize(
    ("gates", "options", "fewest", "most"),
    [
        ("one", {}, 1, 1),
        ("topk", {}, 2, 2),
        ("topk", {"k": 3}, 3, 3),
        ("dselect_k", {"k": 3}, 1, 3),
        ("softmax", {}, 5, 5),
        ("all", {}, 5, 5),
    ],
)
def test_a_task_keeps_as_many_experts_as_its_gate_allows(
    gates: str, options: dict[str, Any], fewest: int, most: int
) -> None:
    density = made(gates, **options).gated_stages()[0].plan().density()
    assert fewest <= density.min()
    assert density.max() <= most


def test_a_routed_task_uses_its_expert_as_it_is() -> None:
    plan = made("one").gated_stages()[0].plan()
    assert plan.weights == ((1.0,),) * N
    assert not plan.mixes


@pytest.mark.parametrize("gates", ["topk", "dselect_k", "softmax"])
def test_shares_of_experts_add_up_to_one(gates: str) -> None:
    for weights in made(gates).gated_stages()[0].plan().weights:
        assert sum(weights) == pytest.approx(1.0, abs=1e-5)


def test_noise_changes_which_experts_are_tried_while_training_alone() -> None:
    gate = TopKGate(2, 6, 2)
    task = torch.zeros(200, dtype=torch.int64)
    chosen, weights = gate(task, a_draw(200))
    assert (chosen.sum(1) == 2).all()
    assert chosen.any(0).all()  # Equal logits: every expert is tried.
    torch.testing.assert_close(weights.sum(1), torch.ones(200))
    assert (weights[~chosen] == 0).all()
    assert gate.selection().tolist() == [[True, True, False, False, False, False]] * 2


def test_a_selector_past_its_middle_is_exactly_one_expert() -> None:
    gate = DSelectGate(1, 6, 2)
    with torch.no_grad():
        gate.digits.copy_(
            torch.tensor([[[0.6, -0.7, 0.5], [-1.0, 0.9, -0.5]]])
        )  # 101 and 010, low digit first
        gate.logits.copy_(torch.tensor([[0.0, 1.0]]))
    wanted = torch.zeros(1, 6)
    wanted[0, [5, 2]] = torch.softmax(gate.logits[0], dim=0).detach()
    torch.testing.assert_close(gate.probabilities(), wanted)
    torch.testing.assert_close(torch.where(gate.selection(), gate.weights(gate.selection()), 0.0), wanted)
    assert gate.density().tolist() == [2.0]
    assert gate.penalty().item() == pytest.approx(0.0, abs=1e-4)


def test_selectors_pay_for_being_undecided_and_for_pointing_at_nobody() -> None:
    whole, holed = DSelectGate(1, 4, 1), DSelectGate(1, 3, 1)
    with torch.no_grad():
        for gate in (whole, holed):
            gate.digits.fill_(0.0)
    assert whole.penalty().item() == pytest.approx(torch.log(torch.tensor(4.0)).item(), rel=1e-4)
    with torch.no_grad():
        for gate in (whole, holed):
            gate.digits.fill_(0.45)
    assert holed.penalty() > 5 * whole.penalty()


def test_own_experts_are_used_by_their_task_alone() -> None:
    model = made("softmax", experts=3, own=2)
    plan = model.gated_stages()[0].plan()
    assert plan.trained_blocks == 3 + 2 * N
    for task, used in enumerate(plan.uses):
        assert [plan.blocks[index].source for index in used] == [0, 1, 2, 3 + 2 * task, 4 + 2 * task]


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"gates": "topk", "k": 7}, "k"),
        ({"gates": "learned", "k": 2}, "k"),
        ({"gates": "one", "k": 1}, "k"),
    ],
)
def test_a_number_of_experts_that_cannot_be_is_a_mistake(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=rf"model\.stages\.0\.{path}: "):
        model_of([{"kind": "gated", "experts": 5, "block": LINEAR, **options}], tasks(2))


# ---- what learned gates keep at the freeze


def bernoulli(at_freeze: str, probabilities: list[list[float]]) -> BernoulliGate:
    wanted = torch.tensor(probabilities)
    gate = BernoulliGate(*wanted.shape, at_freeze=at_freeze)  # type: ignore[arg-type]
    with torch.no_grad():
        gate.logits.copy_(torch.logit(wanted))
    return gate


P = [[0.9, 0.8, 0.7, 0.4], [0.45, 0.4, 0.3, 0.1], [0.1, 0.2, 0.1, 0.1]]


@pytest.mark.parametrize(
    ("at_freeze", "wanted"),
    [
        ("own_k", [[0, 1, 2], [0], [1]]),  # k is 2.8, 1.25 and 0.5
        ("mean_k", [[0, 1], [0, 1], [0, 1]]),  # The mean of k is 1.5, which rounds to the even 2
        ("round", [[0, 1, 2], [0], [1]]),
        ("all", [[0, 1, 2, 3]] * 3),
    ],
)
def test_the_ways_of_fixing_the_experts_that_the_paper_compares(
    at_freeze: str, wanted: list[list[int]]
) -> None:
    selection = bernoulli(at_freeze, P).selection()
    assert [row.nonzero().flatten().tolist() for row in selection] == wanted


def test_sampled_experts_follow_the_probabilities_and_stay() -> None:
    gate = bernoulli("sample", [[0.1, 0.5, 0.9]] * 3000)
    selection = gate.selection()
    assert torch.equal(selection, gate.selection())
    assert selection.any(dim=1).all()
    torch.testing.assert_close(selection.float().mean(0), torch.tensor([0.1, 0.5, 0.945]), atol=0.04, rtol=0)


# ---- nothing is computed twice


def test_equal_questions_are_found() -> None:
    torch.manual_seed(0)
    for experts in (3, 70):
        chosen = (torch.rand(40, experts) < 0.1)[torch.randint(40, (200,))]
        question = torch.randint(4, (200,))
        first, number = distinct_questions(question, chosen)
        rows = [(int(q), *map(int, row.nonzero())) for q, row in zip(question, chosen, strict=True)]
        assert len(first) == len(set(rows))
        assert first.tolist() == sorted({rows.index(row) for row in rows})
        assert [rows[first[n]] for n in number] == rows


def test_gates_that_are_sure_answer_a_question_once_however_often_they_are_drawn() -> None:
    model = made("learned")
    with torch.no_grad():
        model.gated_stages()[0].gate.logits.copy_(torch.randn(N, 5).sign() * 40)
    row, task = torch.arange(8), torch.arange(8) % N
    draw = a_draw(8, samples=8)
    stage = model.gated_stages()[0]
    rows = count_rows(stage.bank)
    model(torch.randn(8, 6), row.repeat(8), task.repeat(8), draw)
    assert sum(rows) == int(stage.selection()[task].sum())


def test_flips_run_every_expert_once_and_only_the_drawn_ones_backward() -> None:
    model = made("learned")
    with torch.no_grad():
        model.gated_stages()[0].gate.logits.fill_(-2.0)
    stage = model.gated_stages()[0]
    learning: list[bool] = []
    stage.bank.template.batched = False
    rows = count_rows(stage.bank)
    stage.bank.template.register_forward_hook(lambda *_: learning.append(torch.is_grad_enabled()))
    draw = LocalDraw(torch.Generator().manual_seed(0), 16, 5)
    model(torch.randn(16, 6), torch.arange(16).repeat(6), (torch.arange(16) % N).repeat(6), draw)
    assert sum(rows) == 16 * 5
    taught = sum(number for number, learns in zip(rows, learning, strict=True) if learns)
    assert 0 < taught < 40


def test_gates_say_whether_a_budget_may_cut_them() -> None:
    gates: list[Gate] = [RoutingGate(2, 3), TopKGate(2, 3, 2), DSelectGate(2, 3, 1), BernoulliGate(2, 3)]
    assert all(gate.separable for gate in gates)
    assert not UngatedMixture(2, 3).separable
    assert not SoftmaxGate(2, 3).separable


# ---- which estimator, when none is named


@pytest.mark.parametrize(
    ("logit", "samples", "asked", "wanted"),
    [
        (0.0, 2, 1, "local"),
        (-2.0, 2, 1, "disarm"),
        (-2.0, 4, 1, "leave_one_out"),
        (-4.0, 1, 1, "baseline"),
        (-2.0, 2, 20, "local"),  # Somebody asks for every expert anyway.
    ],
)
def test_gates_are_flipped_where_all_experts_run_anyway(
    logit: float, samples: int, asked: float, wanted: str
) -> None:
    large = {"kind": "mlp", "widths": [300, 8]}
    model = model_of([{"kind": "gated", "experts": 5, "block": large}], tasks(N), size=300)
    with torch.no_grad():
        model.gated_stages()[0].gate.logits.fill_(logit)
    assert cheapest(model, samples, asked) == wanted


def test_flips_of_many_small_gates_cost_more_than_their_experts() -> None:
    model = model_of([{"kind": "gated", "experts": 30, "block": LINEAR}], tasks(N))
    assert cheapest(model, 2, N) == "disarm"
    assert cheapest(model, 2, N, inputs=1) == "local"  # A step so small costs the same anyway.


def test_gates_are_not_flipped_where_more_than_heads_would_run_again() -> None:
    gated = {"kind": "gated", "experts": 2, "block": LINEAR}
    for stages in ([gated, gated], [gated, {"kind": "hard", "block": LINEAR}], [gated | {"experts": 30}]):
        assert cheapest(model_of(stages, tasks(2)), 2, 50) == "disarm"


@pytest.mark.parametrize("options", [{"gate_estimator": "disarm", "gate_samples": 3}, {"gate_samples": 9}])
def test_sets_of_gates_that_an_estimator_cannot_use_are_a_mistake(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="gate_samples"):
        load_config(TrainerConfig, source=options)
