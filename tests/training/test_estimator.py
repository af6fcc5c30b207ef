"""The gates' gradient against the exact one, by enumeration of every combination of gates."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.training.making import model_of, task
from torch import Tensor
from torch.func import functional_call

from coterie.training import MultiTaskModel
from coterie.training.estimator import BaselineTracker, surrogate
from coterie.training.losses import QuestionLoss
from coterie.training.stages import Draw

TASKS = [task("two", width=2), task("three", width=3)]
INPUTS = torch.tensor([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7]])
ROW, TASK = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
TARGET = torch.tensor([[1.0], [2.0], [0.0]])
WEIGHT = torch.tensor([1.0, 0.5, 2.0])
SAME = {"kind": "linear", "width": 3, "activation": "tanh"}


def model(layers: int) -> MultiTaskModel:
    """Gated layers of 3 experts (or two of 2), their gates neither open nor closed."""
    stages = [{"kind": "gated", "experts": 4 - layers, "block": SAME}] * layers
    made = model_of(stages, TASKS, size=3, seed=4)
    torch.manual_seed(5)
    with torch.no_grad():
        for stage in made.gated_stages():
            stage.logits.copy_(torch.randn(stage.logits.shape))
    return made.train()


def loss_given(made: MultiTaskModel, gates: list[Tensor], question: int) -> Tensor:
    """One question's loss with given gates ``[M]`` of each layer."""
    number = int(TASK[question])
    state = INPUTS[ROW[question]].unsqueeze(0)
    for stage, open_ in zip(made.gated_stages(), gates, strict=True):
        mixed = torch.zeros(1, 3)
        for expert in range(stage.bank.blocks):
            named = {name.replace("/", "."): weight[expert] for name, weight in stage.bank.weights.items()}
            feature = functional_call(stage.bank.template, named, (state,))
            mixed = mixed + open_[expert] * stage.mixture[number, expert] * feature
        state = mixed
    head = made.head
    scores = state @ head.weights[number][0] + head.biases[number][0]
    return torch.nn.functional.cross_entropy(scores, TARGET[question].long())


def exact(made: MultiTaskModel) -> dict[str, Tensor]:
    """The gradient of the expected loss, by enumeration."""
    sizes = [stage.bank.blocks for stage in made.gated_stages()]
    total = torch.zeros(())
    for question in range(len(TASK)):
        for bits in itertools.product([0.0, 1.0], repeat=sum(sizes)):
            gates = list(torch.tensor(bits).split(sizes))
            probability = torch.ones(())
            for stage, open_ in zip(made.gated_stages(), gates, strict=True):
                p = torch.sigmoid(stage.logits[TASK[question]])
                probability = probability * torch.where(open_ > 0, p, 1 - p).prod()
            total = total + WEIGHT[question] * probability * loss_given(made, gates, question)
    made.zero_grad()
    (total / WEIGHT.sum()).backward()
    return {name: each.grad.clone() for name, each in made.named_parameters()}


def drawn(
    made: MultiTaskModel, samples: int, copies: int, generator: torch.Generator, *, baseline: bool = True
) -> dict[str, Tensor]:
    """The mean over ``copies`` steps of the gradient that the trainer takes."""
    row, number = ROW.repeat(copies), TASK.repeat(copies)
    target, weight = TARGET.repeat(copies, 1), WEIGHT.repeat(copies).unsqueeze(0)
    draw = Draw(generator, torch.zeros(samples * len(row)))
    scores = made(INPUTS, row.repeat(samples), number.repeat(samples), draw)
    losses, _ = QuestionLoss(TASKS, made.head.scale)(
        scores, target.repeat(samples, 1), number.repeat(samples)
    )
    losses, gates = losses.reshape(samples, -1), draw.log_probability.reshape(samples, -1)
    total = samples * weight.sum()
    tracker = BaselineTracker(2)
    tracker.update(torch.tensor([0.9, 1.4]), torch.tensor([0, 1]))
    if baseline:
        score = surrogate(losses, gates, weight, number, tracker)
    else:
        score = (losses.detach() * gates * weight).sum() / total
    made.zero_grad()
    ((losses * weight).sum() / total + score).backward()
    return {name: each.grad.clone() for name, each in made.named_parameters()}


@pytest.mark.parametrize(("layers", "samples"), [(1, 1), (1, 2), (1, 4), (2, 2)])
def test_the_gradient_is_unbiased(layers: int, samples: int) -> None:
    made = model(layers)
    wanted = exact(made)
    generator = torch.Generator().manual_seed(6)
    rounds = [drawn(made, samples, 1500, generator) for _ in range(24)]
    for name, gradient in wanted.items():
        found = torch.stack([each[name] for each in rounds])
        error = found.std(0) / len(rounds) ** 0.5
        distance = (found.mean(0) - gradient).abs()
        assert (distance <= 4.5 * error + 1e-5).all(), name
        # The test sees something: the error is small beside the gradient itself.
        assert error.max() < 0.2 * gradient.abs().max(), name


def test_leaving_one_out_takes_variance_away() -> None:
    made = model(1)
    generator = torch.Generator().manual_seed(7)

    def variance(samples: int, *, baseline: bool) -> float:
        rounds = [drawn(made, samples, 1, generator, baseline=baseline) for _ in range(250)]
        name = next(name for name in rounds[0] if name.endswith("logits"))
        return float(torch.stack([each[name] for each in rounds]).var(0).sum())

    plain = variance(2, baseline=False)
    assert variance(2, baseline=True) < 0.7 * plain
    assert variance(4, baseline=True) < 0.25 * plain


def test_the_running_mean_takes_variance_away_from_single_draws() -> None:
    made = model(1)
    generator = torch.Generator().manual_seed(8)

    def variance(*, baseline: bool) -> float:
        rounds = [drawn(made, 1, 1, generator, baseline=baseline) for _ in range(250)]
        name = next(name for name in rounds[0] if name.endswith("logits"))
        return float(torch.stack([each[name] for each in rounds]).var(0).sum())

    assert variance(baseline=True) < 0.7 * variance(baseline=False)


def test_no_gradient_of_the_losses_flows_through_the_surrogate() -> None:
    losses = torch.rand(2, 3, requires_grad=True)
    gates = torch.rand(2, 3, requires_grad=True)
    surrogate(losses, gates, torch.ones(1, 3), torch.tensor([0, 1, 1]), BaselineTracker(2)).backward()
    assert losses.grad is None
    assert gates.grad is not None


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
    losses, weight = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    surrogate(losses, torch.zeros(1, 2), weight, torch.tensor([0, 0]), tracker)
    assert tracker.state()["mean"] == [2.0]


def test_a_tracker_goes_on_where_it_was() -> None:
    tracker, other = BaselineTracker(2), BaselineTracker(2)
    tracker.update(torch.tensor([0.1, 0.7]), torch.tensor([0, 0]))
    other.restore(tracker.state())
    for each in (tracker, other):
        each.update(torch.tensor([0.3, 0.2]), torch.tensor([0, 1]))
    assert tracker.state() == other.state()


def test_no_weight_at_all_is_no_gradient() -> None:
    gates = torch.rand(2, 2, requires_grad=True)
    value = surrogate(torch.rand(2, 2), gates, torch.zeros(1, 2), torch.tensor([0, 0]), BaselineTracker(1))
    assert float(value) == 0.0
