"""Recognition: shared blocks learn to tell the tasks apart, and nothing else does."""

from __future__ import annotations

import pytest
import torch
from tests.training.making import LINEAR, model_of, questions, tasks
from torch import nn

from coterie.runtime.errors import ConfigError
from coterie.training import MultiTaskModel
from coterie.training.blocks import InputShape
from coterie.training.dispatch import State
from coterie.training.draws import ScoreDraw
from coterie.training.stages import GatedStage, HardStage
from coterie.training.stages._recognition import Recogniser


def hard(**options: object) -> tuple[MultiTaskModel, HardStage]:
    model = model_of([{"kind": "hard", "block": LINEAR, **options}], tasks(3))
    return model, model.each_stage()[0]


def gated(**options: object) -> GatedStage:
    stage = {"kind": "gated", "experts": 2, "own": 1, "gates": "all", "block": LINEAR, "recognition": 1.0}
    return model_of([stage | options], tasks(3)).each_stage()[0]


def test_the_price_is_the_cross_entropy_of_a_linear_guess() -> None:
    _, stage = hard(recognition=0.25)
    inputs, (row, task) = torch.randn(5, 6), questions(11, 5, 3)
    states = stage.train()(State(inputs, row), task).values[row]
    guess = states @ stage.recogniser.weight[0] + stage.recogniser.bias[0]
    torch.testing.assert_close(stage.penalty(), 0.25 * nn.functional.cross_entropy(guess, task))
    assert stage.report()["recognised"] == pytest.approx(float((guess.argmax(1) == task).float().mean()))


def test_the_price_is_of_the_last_training_batch_alone() -> None:
    _, stage = hard(recognition=1.0)
    state, task = State(torch.randn(4, 6), torch.arange(4)), torch.tensor([0, 1, 2, 0])
    stage.train()(state, task)
    assert stage.penalty() > 0
    assert stage.penalty() == 0
    stage.eval()(state, task)
    assert stage.penalty() == 0


def test_sets_of_gates_that_only_the_gates_learn_from_are_not_asked() -> None:
    _, stage = hard(recognition=1.0)
    inputs, task = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    stage.train()(State(inputs, torch.arange(4)), task)
    once = stage.penalty()
    draw = ScoreDraw(torch.Generator(), 4, samples=2)
    stage(State(inputs, torch.arange(4).repeat(2)), torch.cat([task, torch.ones(4, dtype=torch.int64)]), draw)
    torch.testing.assert_close(stage.penalty(), once)


def test_a_shared_block_learns_to_tell_the_tasks_apart() -> None:
    _, stage = hard(recognition=1.0)
    task = torch.arange(60) % 3
    inputs = torch.randn(60, 6) + 2 * nn.functional.one_hot(task, 6)
    optimizer = torch.optim.Adam(stage.bank.parameters(), lr=0.02)  # the block alone, not what guesses
    prices = []
    for _ in range(60):
        optimizer.zero_grad()
        stage.train()(State(inputs, torch.arange(60)), task)
        price = stage.penalty()
        price.backward()
        optimizer.step()
        prices.append(price.item())
    assert prices[-1] < 0.8 * prices[0]


def test_a_tasks_own_experts_give_themselves_away_and_are_not_asked() -> None:
    stage = gated()
    inputs, (row, task) = torch.randn(5, 6), questions(11, 5, 3)
    stage.train()(State(inputs, row), task, ScoreDraw(torch.Generator(), 11))
    stage.penalty().backward()
    gradient = stage.bank.weights["layer/weight"].grad.flatten(1).norm(dim=1)
    assert (gradient[:2] > 0).all()
    assert (gradient[2:] == 0).all()


def test_beside_private_blocks_the_shared_one_alone_is_asked() -> None:
    options = {"adversarial": 0.0, "orthogonality": 0.0, "recognition": 1.0, "block": LINEAR}
    stage = model_of([{"kind": "shared_private", **options}], tasks(3)).each_stage()[0]
    inputs, (row, task) = torch.randn(5, 6), questions(11, 5, 3)
    stage.train()(State(inputs, row), task)
    stage.penalty().backward()
    gradient = stage.bank.weights["layer/weight"].grad.flatten(1).norm(dim=1)
    assert gradient[0] > 0
    assert (gradient[1:] == 0).all()


def test_a_shared_block_cannot_both_tell_and_not_tell() -> None:
    with pytest.raises(ConfigError) as error:
        model_of([{"kind": "shared_private", "block": LINEAR, "recognition": 1.0}], tasks(3))
    assert "adversarial" in error.value.problems[0]


def test_each_expert_is_asked_by_a_classifier_of_its_own() -> None:
    stage = gated(own=0)
    inputs, task = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    stage.train()(State(inputs, torch.arange(4)), task, ScoreDraw(torch.Generator(), 4))
    prices = []
    for expert in range(2):
        states = stage.bank.run(inputs, torch.full((4,), expert))
        guess = states @ stage.recogniser.weight[expert] + stage.recogniser.bias[expert]
        prices.append(nn.functional.cross_entropy(guess, task))
    torch.testing.assert_close(stage.penalty(), sum(prices) / 2)


def test_what_guesses_is_not_frozen() -> None:
    model, _ = hard(recognition=1.0)
    frozen = model.eval().freeze()
    assert all(set(tensors) == {"layer.weight", "layer.bias"} for tensors in frozen.banks[0].tensors)
    assert hard()[1].recogniser is None


def test_an_image_is_recognised_by_the_mean_over_its_pixels() -> None:
    recogniser = Recogniser(InputShape(dims=(4, 2, 3)), 3, price=1.0)
    images, task = torch.randn(5, 4, 2, 3), torch.tensor([0, 1, 2, 0, 1])
    recogniser.notice(images, task)
    whole = recogniser.penalty()
    recogniser.notice(images.mean((2, 3)), task)
    torch.testing.assert_close(recogniser.penalty(), whole)


def test_sequences_are_refused() -> None:
    with pytest.raises(ConfigError, match="recognition: takes vectors"):
        Recogniser(InputShape(dims=(None, 4)), 3, price=1.0)
