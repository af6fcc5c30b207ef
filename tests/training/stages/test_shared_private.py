"""Shared and private networks: who tells the tasks apart, and who must not."""

from __future__ import annotations

import pytest
import torch
from tests.training.making import LINEAR, model_of, questions, tasks

from coterie.runtime.errors import ConfigError
from coterie.training import MultiTaskModel
from coterie.training.dispatch import State
from coterie.training.stages import SharedPrivateStage


def built(**options: object) -> tuple[MultiTaskModel, SharedPrivateStage]:
    model = model_of([{"kind": "shared_private", "block": LINEAR, **options}], tasks(3))
    return model, model.each_stage()[0]


def test_a_state_is_the_shared_result_and_the_tasks_own() -> None:
    _, stage = built()
    inputs, (row, task) = torch.randn(5, 6), questions(11, 5, 3)
    state = stage.eval()(State(inputs, row), task)
    states = state.values[state.position]
    for question in range(11):
        one = inputs[row[question] : row[question] + 1]
        shared = stage.bank.run(one, torch.tensor([0]))
        private = stage.bank.run(one, task[question : question + 1] + 1)
        torch.testing.assert_close(states[question], torch.cat([shared[0], private[0]]))


def test_it_freezes_to_one_shared_block_and_one_a_task_and_no_discriminator() -> None:
    model, _ = built()
    frozen = model.eval().freeze()
    plan = frozen.plan.stages[0]
    assert (plan.kind, plan.combine) == ("shared_private", "concat")
    assert plan.uses == ((0, 1), (0, 2), (0, 3))
    assert all(set(tensors) == {"layer.weight", "layer.bias"} for tensors in frozen.banks[0].tensors)
    inputs, (row, task) = torch.randn(5, 6), questions(11, 5, 3)
    torch.testing.assert_close(frozen(inputs, row, task), model(inputs, row, task).detach())


def test_the_adversary_learns_the_task_and_the_shared_block_unlearns_it() -> None:
    """The discriminator's own step makes its price smaller; the shared block's step makes it larger."""
    _, stage = built(adversarial=1.0, orthogonality=0.0)
    task = torch.arange(30) % 3
    inputs = torch.randn(30, 6) + 2 * torch.nn.functional.one_hot(task, 6)
    stage.train()

    def price() -> torch.Tensor:
        stage(State(inputs, torch.arange(30)), task)
        return stage.penalty()

    before = price()
    before.backward()
    for part, better in ((stage.discriminator, True), (stage.bank, False)):
        held = {name: tensor.clone() for name, tensor in part.state_dict().items()}
        steps = {name: parameter.grad for name, parameter in part.named_parameters()}
        part.load_state_dict({name: held[name] - 0.1 * steps[name] for name in held})
        assert bool(price() < before) is better
        part.load_state_dict(held)


def test_private_states_pay_for_what_the_shared_ones_say_already() -> None:
    _, stage = built(adversarial=0.0, orthogonality=1.0)
    task = torch.tensor([0, 0, 1])
    inputs = torch.randn(3, 6)
    stage.train()
    values = stage(State(inputs, torch.arange(3)), task).values
    shared, private = values[:, :6], values[:, 6:]
    wanted = sum(((shared[rows].T @ private[rows]) ** 2).sum() / len(rows) ** 2 for rows in ([0, 1], [2]))
    torch.testing.assert_close(stage.penalty(), wanted)
    optimizer = torch.optim.Adam(stage.bank.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        stage(State(inputs, torch.arange(3)), task)
        stage.penalty().backward()
        optimizer.step()
    stage(State(inputs, torch.arange(3)), task)
    assert stage.penalty() < 0.2 * wanted


def test_the_price_is_of_the_last_training_batch_alone() -> None:
    _, stage = built()
    state = State(torch.randn(4, 6), torch.arange(4))
    stage.train()(state, torch.tensor([0, 1, 2, 0]))
    assert stage.penalty() > 0
    stage.eval()(state, torch.tensor([0, 1, 2, 0]))
    assert stage.penalty().item() == 0


def test_a_block_that_gives_no_vectors_is_refused() -> None:
    from coterie.training.blocks import InputShape
    from coterie.training.stages import SharedPrivateConfig, Site
    from coterie.training.yaml_config import load_config

    block = {"kind": "lstm", "width": 3, "pool": "none"}
    config = load_config(SharedPrivateConfig, source={"kind": "shared_private", "block": block})
    with pytest.raises(ConfigError, match="set its pool"):
        config.build(Site(name="asp", tasks=tuple(tasks(2)), shape=InputShape(dims=(None, 4))))
