"""The gates' gradient against the exact one, by enumeration of every combination of gates."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from tests.training.making import model_of, task
from torch import Tensor
from torch.func import functional_call

import coterie.training.model
from coterie.training import MultiTaskModel
from coterie.training.draws import (
    BaselineDraw,
    BaselineTracker,
    DisarmDraw,
    Draw,
    LeaveOneOutDraw,
    LocalDraw,
    ScoreDraw,
)
from coterie.training.loop.losses import QuestionLoss
from coterie.training.stages import GatedStage

TASKS = [task("two", width=2), task("three", width=3)]
INPUTS = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7]])
ROW, TASK = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
TARGET = torch.tensor([[1.0], [2.0], [0.0]])
WEIGHT = torch.tensor([1.0, 0.5, 2.0])
SAME = {"kind": "linear", "width": 3, "activation": "tanh"}


def model(*gates: str, experts: int = 2) -> MultiTaskModel:
    """A gated layer for each name of gates, neither open nor closed."""
    stages = [{"kind": "gated", "experts": experts, "gates": each, "block": SAME} for each in gates]
    made = model_of(stages, TASKS, size=3, seed=4)
    torch.manual_seed(5)
    with torch.no_grad():
        for stage in made.gated_stages():
            stage.gate.logits.copy_(torch.randn(stage.gate.logits.shape))
    return made.train()


def draw_of(name: str, made: MultiTaskModel, questions: int, generator: torch.Generator) -> Draw:
    """The draw of an estimator, such as ``disarm 4``."""
    kind, _, number = name.partition(" ")
    samples = int(number or 1)
    match kind:
        case "local":
            gates = sum(stage.draws for stage in made.gated_stages())
            return LocalDraw(generator, questions, gates)
        case "disarm":
            return DisarmDraw(generator, questions, samples=samples)
        case "leave_one_out":
            return LeaveOneOutDraw(generator, questions, samples=samples)
        case "baseline":
            tracker = BaselineTracker(2)
            tracker.update(torch.tensor([0.9, 1.4]), torch.tensor([0, 1]))
            return BaselineDraw(generator, questions, tracker, samples=samples)
    return ScoreDraw(generator, questions, samples=samples)


def choices(stage: GatedStage, number: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Every set of gates of one layer, with its probability and the weights of its experts."""
    logits = stage.gate.logits[number]
    if stage.gate.state_dict().keys() == {"logits"}:
        for expert, p in enumerate(torch.softmax(logits, dim=0)):
            yield torch.eye(len(logits))[expert], p, torch.ones(len(logits))
        return
    for bits in itertools.product([0.0, 1.0], repeat=len(logits)):
        p, opened = torch.sigmoid(logits), torch.tensor(bits)
        yield opened, torch.where(opened > 0, p, 1 - p).prod(), stage.gate.mixture[number]


def loss_given(made: MultiTaskModel, chosen: list[tuple[Tensor, Tensor]], question: int) -> Tensor:
    """One question's loss with given gates and weights ``[M]`` of each layer."""
    number = int(TASK[question])
    state = INPUTS[ROW[question]].unsqueeze(0)
    for stage, (opened, weight) in zip(made.gated_stages(), chosen, strict=True):
        mixed = torch.zeros(1, 3)
        for expert in range(stage.bank.blocks):
            named = {name.replace("/", "."): each[expert] for name, each in stage.bank.weights.items()}
            mixed = mixed + opened[expert] * weight[expert] * functional_call(
                stage.bank.template, named, (state,)
            )
        state = mixed
    head = made.head
    scores = state @ head.weights[number][0] + head.biases[number][0]
    return torch.nn.functional.cross_entropy(scores, TARGET[question].long())


def exact(made: MultiTaskModel) -> dict[str, Tensor]:
    """The gradient of the expected loss, by enumeration."""
    total = torch.zeros(())
    for question in range(len(TASK)):
        layers = [list(choices(stage, int(TASK[question]))) for stage in made.gated_stages()]
        for combination in itertools.product(*layers):
            probability = torch.stack([p for _, p, _ in combination]).prod()
            given = [(opened, weight) for opened, _, weight in combination]
            total = total + WEIGHT[question] * probability * loss_given(made, given, question)
    made.zero_grad()
    (total / WEIGHT.sum()).backward()
    return {name: each.grad.clone() for name, each in made.named_parameters()}


def estimated(
    made: MultiTaskModel, name: str, copies: int, generator: torch.Generator
) -> tuple[dict[str, Tensor], Draw]:
    """The mean over ``copies`` steps of the gradient that the trainer takes."""
    row, number = ROW.repeat(copies), TASK.repeat(copies)
    target, weight = TARGET.repeat(copies, 1), WEIGHT.repeat(copies)
    draw = draw_of(name, made, len(row), generator)
    sets = draw.samples
    scores = made(INPUTS, row.repeat(sets), number.repeat(sets), draw)
    losses, _ = QuestionLoss(TASKS, made.head.scale)(scores, target.repeat(sets, 1), number.repeat(sets))
    losses = losses.reshape(sets, -1)
    objective = (losses[0] * weight).sum() / weight.sum() + draw.surrogate(losses, weight, number)
    made.zero_grad()
    objective.backward()
    return {name: each.grad.clone() for name, each in made.named_parameters()}, draw


ONE = [
    "score 1",
    "score 2",
    "baseline 1",
    "leave_one_out 2",
    "leave_one_out 4",
    "disarm 2",
    "disarm 4",
    "local",
]
CASES = [
    *[(name, ("learned",)) for name in ONE],
    *[(name, ("learned", "learned")) for name in ("leave_one_out 3", "disarm 2", "local")],
    *[(name, ("one",)) for name in ("leave_one_out 2", "disarm 2", "local")],
    *[(name, ("learned", "one")) for name in ("disarm 2", "local")],
]


@pytest.mark.parametrize(("name", "gates"), CASES)
def test_the_gradient_is_unbiased(name: str, gates: tuple[str, ...]) -> None:
    made = model(*gates, experts=3 if len(gates) == 1 else 2)
    wanted = exact(made)
    generator = torch.Generator().manual_seed(6)
    rounds = [estimated(made, name, 1500, generator)[0] for _ in range(12)]
    for parameter, gradient in wanted.items():
        found = torch.stack([each[parameter] for each in rounds])
        error = found.std(0) / len(rounds) ** 0.5
        distance = (found.mean(0) - gradient).abs()
        assert (distance <= 5 * error + 1e-5).all(), parameter
        # The test sees something: the error is small beside the gradient itself.
        assert error.max() < 0.25 * gradient.abs().max(), parameter


def test_one_layer_of_routing_has_its_exact_gradient_from_local_expectations() -> None:
    made = model("one", experts=3)
    name = "stages.0.gate.logits"
    found, _ = estimated(made, "local", 1, torch.Generator().manual_seed(1))
    torch.testing.assert_close(found[name], exact(made)[name])


def test_each_estimator_has_less_variance_than_the_one_before() -> None:
    made = model("learned", experts=3)
    generator = torch.Generator().manual_seed(7)

    def variance(name: str) -> float:
        rounds = [estimated(made, name, 30, generator)[0]["stages.0.gate.logits"] for _ in range(50)]
        return float(torch.stack(rounds).var(0).sum())

    found = [
        variance(name) for name in ("score 1", "baseline 1", "leave_one_out 2", "leave_one_out 4", "local")
    ]
    for worse, better in itertools.pairwise(found):
        assert better < 0.8 * worse, found
    assert variance("disarm 2") < found[1]


def test_opposite_gates_come_in_pairs() -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.tensor([[0.0, 2.0]]).expand(4000, -1)
    first, second = DisarmDraw(generator, 2000, samples=2).bernoulli(logits).split(2000)
    assert (first[:, 0] != second[:, 0]).all()
    assert (first[:, 1] | second[:, 1]).all()
    wanted = torch.sigmoid(logits[0])
    for each in (first, second):
        torch.testing.assert_close(each.float().mean(0), wanted, atol=0.04, rtol=0)


def test_local_sets_differ_from_the_first_in_one_gate_of_one_layer() -> None:
    draw = LocalDraw(torch.Generator().manual_seed(3), 5, 5)
    first = draw.bernoulli(torch.randn(30, 3)).reshape(6, 5, 3)
    second = draw.bernoulli(torch.randn(30, 2)).reshape(6, 5, 2)
    together = torch.cat([first, second], dim=2)
    assert torch.equal((together[1:] != together[0]).long(), torch.eye(5).long().unsqueeze(1).expand(5, 5, 5))


def test_a_part_of_a_step_draws_the_gates_it_has_in_the_whole() -> None:
    logits = torch.randn(6, 4)
    for name in ("leave_one_out", "disarm"):
        kind = {"leave_one_out": LeaveOneOutDraw, "disarm": DisarmDraw}[name]
        whole = kind(torch.Generator().manual_seed(1), 6, samples=2).bernoulli(logits.repeat(2, 1))
        place = torch.tensor([1, 4])
        part = kind(torch.Generator().manual_seed(1), 2, samples=2, place=place, whole=6)
        assert torch.equal(
            part.bernoulli(logits[place].repeat(2, 1)), whole.reshape(2, 6, 4)[:, place].flatten(0, 1)
        )


@pytest.mark.parametrize("name", ["score 2", "leave_one_out 2", "disarm 2", "local"])
def test_weights_learn_from_the_first_set_of_gates_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # That a gated layer and the heads in one learn as one by one is tested beside them.
    monkeypatch.setattr(coterie.training.model, "scored", lambda *_: None)
    made = model("learned", experts=3)
    stage, seen = made.gated_stages()[0], []
    stage.gate.register_forward_hook(lambda _module, _inputs, result: seen.append(result[0]))
    found, _ = estimated(made, name, 1, torch.Generator().manual_seed(9))
    losses = [
        WEIGHT[q] * loss_given(made, [(seen[0][q].float(), stage.gate.mixture[int(TASK[q])])], q)
        for q in range(3)
    ]
    made.zero_grad()
    (torch.stack(losses).sum() / WEIGHT.sum()).backward()
    for parameter, each in made.named_parameters():
        if "logits" not in parameter:
            torch.testing.assert_close(found[parameter], each.grad)


def test_no_gradient_of_the_losses_flows_through_the_surrogate() -> None:
    losses, logits = torch.rand(2, 3, requires_grad=True), torch.zeros(6, 2, requires_grad=True)
    draw = LeaveOneOutDraw(torch.Generator().manual_seed(0), 3, samples=2)
    draw.bernoulli(logits)
    draw.surrogate(losses, torch.ones(3), torch.tensor([0, 1, 1])).backward()
    assert losses.grad is None
    assert logits.grad is not None


def test_a_tracker_remembers_each_tasks_mean_loss() -> None:
    tracker = BaselineTracker(3)
    first = tracker.update(torch.tensor([2.0, 4.0, 1.0]), torch.tensor([0, 0, 2]))
    assert first.tolist() == [2.0, 4.0, 1.0]  # Nothing is known yet: no gradient.
    second = tracker.update(torch.tensor([10.0, 5.0]), torch.tensor([0, 1]))
    assert second.tolist() == [3.0, 5.0]
    third = tracker.update(torch.zeros(3), torch.tensor([0, 1, 2]))
    assert third.tolist() == pytest.approx([0.95 * 3 + 0.05 * 10, 5.0, 1.0])


def test_questions_without_any_label_do_not_pull_a_baseline_to_zero() -> None:
    tracker = BaselineTracker(1)
    draw = BaselineDraw(torch.Generator().manual_seed(0), 2, tracker)
    draw.bernoulli(torch.zeros(2, 2))
    draw.surrogate(torch.tensor([[2.0, 0.0]]), torch.tensor([1.0, 0.0]), torch.tensor([0, 0]))
    assert tracker.state()["mean"] == [2.0]


def test_a_tracker_goes_on_where_it_was() -> None:
    tracker, other = BaselineTracker(2), BaselineTracker(2)
    tracker.update(torch.tensor([0.1, 0.7]), torch.tensor([0, 0]))
    other.restore(tracker.state())
    for each in (tracker, other):
        each.update(torch.tensor([0.3, 0.2]), torch.tensor([0, 1]))
    assert tracker.state() == other.state()


def test_no_weight_at_all_is_no_gradient() -> None:
    draw = LeaveOneOutDraw(torch.Generator().manual_seed(0), 2, samples=2)
    draw.bernoulli(torch.zeros(4, 2, requires_grad=True))
    assert draw.surrogate(torch.rand(2, 2), torch.zeros(2), torch.tensor([0, 0])).item() == 0.0
