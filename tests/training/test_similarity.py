"""Tasks are compared by their weights, their gradients, or what their blocks answer."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from tests.training.clusters import GROUPS, K, N
from tests.training.making import no_moments
from torch import Tensor

from coterie.training.bank import Bank
from coterie.training.blocks import InputShape, MlpConfig
from coterie.training.clustering import cluster
from coterie.training.dispatch import State
from coterie.training.similarity import FunctionSimilarity
from coterie.training.stages import ClusterStage

TASK = torch.arange(N).repeat(8)
ROW = torch.arange(8 * N)


def mlp_bank(*, alike: bool = False, dropout: float = 0.0) -> Bank:
    torch.manual_seed(0)
    config = MlpConfig(widths=(12, 3), activation="tanh", dropout=dropout)
    return Bank(lambda: config.build(InputShape(dims=(4,))), N, alike=alike)


def permute(bank: Bank) -> None:
    """Give all tasks of a group one function, with the hidden units in another order for each task."""
    with torch.no_grad():
        for task in range(N):
            order = torch.randperm(12)
            for name, places in {"layers/0/weight": 0, "layers/0/bias": 0, "layers/3/weight": 1}.items():
                weight = bank.weights[name]
                weight[task] = weight[GROUPS[task]].index_select(places, order)
            bank.weights["layers/3/bias"][task] = bank.weights["layers/3/bias"][GROUPS[task]]


def stage_of(bank: Bank, by: str, **options: object) -> ClusterStage:
    return ClusterStage("layer", N, bank, clusters=K, by=by, **options)


def seen(stage: ClusterStage) -> ClusterStage:
    """The stage after an epoch began and one batch went through it."""
    stage.begin_epoch(0, no_moments())
    stage(State(torch.randn(8 * N, 4), ROW), TASK)
    return stage


def test_units_in_another_order_are_the_same_function_but_other_weights() -> None:
    bank = mlp_bank()
    permute(bank)
    by_weights = cluster(bank.flat(), K, seed=0).labels
    stage = seen(stage_of(bank, "function", warmup=0, alike=False))
    stage.after_step(0, 0, no_moments())
    assert adjusted_rand_score(GROUPS, by_weights) < 0.9
    assert adjusted_rand_score(GROUPS, stage.labels) == 1.0


def test_tasks_that_did_not_start_alike_take_over_the_middle_ones_weights() -> None:
    """The mean of permuted weights would be another function; the centroid is one of the tasks."""
    bank = mlp_bank()
    permute(bank)
    inputs, own = torch.randn(N, 4), torch.arange(N)
    wanted = bank.run(inputs, own)
    stage = seen(stage_of(bank, "function", warmup=0, alike=False))
    stage.after_step(0, 0, no_moments())
    for training in (True, False):
        state = stage.train(training)(State(inputs, own), own)
        torch.testing.assert_close(state.values[state.position], wanted)
    assert stage.penalty().item() == 0.0


def test_a_task_that_joins_another_cluster_takes_its_weights_and_nobody_else_changes() -> None:
    bank = mlp_bank()
    permute(bank)
    stage = seen(stage_of(bank, "function", warmup=0, alike=False))
    stage.after_step(0, 0, no_moments())
    before, labels = bank.flat(), stage.labels.clone()
    with torch.no_grad():
        for weight in bank.weights.values():
            weight[0] = weight[1] + 0.01
    stage.after_step(0, 1, no_moments())
    assert stage.labels[0] == labels[1]
    assert torch.equal(bank.flat()[0], before[1])
    assert torch.equal(bank.flat()[1:], before[1:])


def test_the_probe_is_of_real_states_from_everywhere_in_an_epochs_first_batch() -> None:
    similarity = FunctionSimilarity()
    states = torch.arange(1000.0).reshape(1000, 1)
    similarity.see(states)
    assert similarity.probe[0] == 0
    assert similarity.probe[-1] == 999
    assert len(similarity.probe.unique()) == len(similarity.probe) == 128
    stage = stage_of(mlp_bank(), "function", warmup=1)
    stage.begin_epoch(0, no_moments())
    for scale in (1.0, 2.0):
        stage(State(torch.full((8 * N, 4), scale), ROW), TASK)
        assert stage.similarity.probe.unique() == 1.0
    stage.begin_epoch(1, no_moments())
    stage.eval()(State(torch.full((8 * N, 4), 3.0), ROW), TASK)
    assert stage.similarity.probe.unique() == 1.0


def test_outputs_are_compared_without_dropout() -> None:
    bank = mlp_bank(alike=True, dropout=0.5).train()
    similarity = FunctionSimilarity()
    similarity.see(torch.randn(20, 4))
    rows = similarity.rows(bank)
    assert torch.equal(rows, rows[:1].expand_as(rows))
    assert bank.training


def test_tasks_that_are_compared_by_gradients_move_as_one_until_they_are_grouped() -> None:
    torch.manual_seed(0)
    stage = stage_of(mlp_bank(alike=True), "gradients", warmup=2)
    optimizer = torch.optim.SGD(stage.parameters(), lr=0.1)
    targets = torch.randn(K, 3)
    alone = []
    for epoch in range(2):
        stage.begin_epoch(epoch, no_moments(list(stage.parameters())))
        inputs = torch.randn(8 * N, 4)
        state = stage(State(inputs, ROW), TASK)
        loss = ((state.values[state.position] - targets[torch.tensor(GROUPS)[TASK]]) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()
        common = {name: weight[0].detach().requires_grad_() for name, weight in stage.bank.weights.items()}
        alone.append(gradient_of(stage.bank, common, inputs, targets))
        for name, weight in stage.bank.weights.items():
            torch.testing.assert_close(weight.grad, common[name].grad.expand_as(weight))
        optimizer.step()
        assert torch.equal(stage.bank.flat(), stage.bank.flat()[:1].expand(N, -1))
        assert stage.plan().uses == ((0,),) * N
    mean = 0.99 * 0.01 * alone[0] + 0.01 * alone[1]
    torch.testing.assert_close(stage.similarity.gradients, mean, rtol=1e-4, atol=1e-7)
    stage.begin_epoch(2, no_moments(list(stage.parameters())))
    assert stage.frozen
    assert adjusted_rand_score(GROUPS, stage.labels) == 1.0


def gradient_of(bank: Bank, common: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
    """Every task's gradient at common weights ``[N, P]``; their sum is left in ``common``."""
    rows = []
    for task in range(N):
        chosen = task == TASK
        named = {name: weight.unsqueeze(0) for name, weight in common.items()}
        outputs = bank.run(inputs[chosen], torch.zeros(8, dtype=torch.int64), named)
        loss = ((outputs - targets[GROUPS[task]]) ** 2).sum()
        gradients = torch.autograd.grad(loss, list(common.values()))
        for weight, gradient in zip(common.values(), gradients, strict=True):
            weight.grad = gradient if weight.grad is None else weight.grad + gradient
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize("by", ["gradients", "function"])
def test_what_was_noticed_is_part_of_the_weights(by: str) -> None:
    stage = seen(stage_of(mlp_bank(alike=True), by, warmup=1))
    fresh = stage_of(mlp_bank(alike=True), by, warmup=1)
    fresh.load_state_dict(stage.state_dict())
    for name, buffer in stage.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], buffer)
