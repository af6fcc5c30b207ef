from __future__ import annotations

import gc
import weakref

import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from tests.training.clusters import GROUPS, K, N, clustered, rows_of, run_with, stage_of
from tests.training.making import no_moments, questions

from coterie.training.dispatch import State
from coterie.training.moments import Moments


@pytest.mark.parametrize("mode", ["shadow", "literal"])
def test_a_freeze_changes_no_answer(mode: str) -> None:
    stage = clustered(mode=mode).eval()
    inputs, (row, task) = torch.randn(5, 4), questions(20, rows=5, number_of_tasks=N)
    state = stage(State(inputs, row), task)
    before = state.values[state.position]
    plan = stage.plan()
    stage.freeze_assignment(no_moments())
    state = stage(State(inputs, row), task)
    assert torch.equal(state.values[state.position], before)
    assert stage.plan() == plan


def test_a_frozen_layer_has_k_blocks_and_is_clustered_no_more() -> None:
    stage = clustered(freeze_after=2)
    stage.begin_epoch(1, no_moments())
    assert not stage.frozen
    stage.begin_epoch(2, no_moments())
    assert stage.frozen
    assert stage.bank.blocks == K
    assert sum(each.numel() for each in stage.parameters()) == K * stage.bank.block_parameters
    labels = stage.labels.clone()
    with torch.no_grad():
        for weight in stage.bank.weights.values():
            weight.copy_(torch.randn(weight.shape))
    stage.after_step(2, 0, no_moments())
    stage.begin_epoch(3, no_moments())
    assert torch.equal(stage.labels, labels)


def test_a_frozen_layers_centroids_are_what_is_trained_and_exported() -> None:
    stage = clustered()
    stage.freeze_assignment(no_moments())
    with torch.no_grad():
        for weight in stage.bank.weights.values():
            weight.add_(1.0)
    inputs = torch.randn(N, 4)
    for training in (True, False):
        state = stage.train(training)(State(inputs, torch.arange(N)), torch.arange(N))
        for task in range(N):
            wanted = run_with(stage, rows_of(stage, int(stage.labels[task])), inputs[task : task + 1])
            torch.testing.assert_close(state.values[state.position[task]].unsqueeze(0), wanted)
    assert torch.equal(stage.frozen_bank().tensors[1]["layer.bias"], stage.bank.weights["layer/bias"][1])


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_the_optimiser_goes_on_with_the_centroids(kind: type[torch.optim.Optimizer]) -> None:
    stage = clustered()
    options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    optimizer = kind(stage.parameters(), lr=1e-5, **options)
    for weight in stage.bank.weights.values():
        weight.grad = torch.randn(weight.shape)
    optimizer.step()
    old = {
        name: {key: value.clone() for key, value in optimizer.state[weight].items() if value.dim() > 0}
        for name, weight in stage.bank.weights.items()
    }
    stage.freeze_assignment(Moments(optimizer))
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(each) for each in held} == {id(each) for each in stage.parameters()}
    assert set(optimizer.state) == set(held)
    for name, weight in stage.bank.weights.items():
        for key, value in old[name].items():
            wanted = torch.stack([value[stage.labels == label].mean(0) for label in range(K)])
            torch.testing.assert_close(optimizer.state[weight][key], wanted)
        weight.grad = torch.ones_like(weight)
    before = stage.bank.flat()
    optimizer.step()
    assert not torch.equal(stage.bank.flat(), before)


def test_freezing_before_any_clustering_clusters_first() -> None:
    stage = stage_of()
    stage.freeze_assignment()
    assert adjusted_rand_score(GROUPS, stage.labels) == 1.0
    assert stage.bank.blocks == K


def test_a_fresh_layer_takes_the_form_of_a_frozen_ones_weights() -> None:
    stage, fresh = clustered(), stage_of()
    stage.freeze_assignment()
    fresh.load_state_dict(stage.state_dict())
    assert torch.equal(fresh.bank.flat(), stage.bank.flat())
    assert fresh.frozen
    assert fresh.plan() == stage.plan()


@pytest.mark.parametrize("by", ["weights", "gradients", "function"])
def test_after_the_freeze_a_thousand_tasks_cost_no_more_than_their_clusters(by: str) -> None:
    """Weights, gradients and the optimiser's memory: K/N of before, and the rest is let go of."""
    tasks, clusters = 1000, 10
    stage = stage_of([task % clusters for task in range(tasks)], clusters=clusters, warmup=1, by=by)
    optimizer = torch.optim.Adam(stage.parameters(), lr=1e-4)

    def size() -> int:
        tensors = [*stage.parameters(), *stage.buffers()]
        tensors += [value for each in optimizer.state.values() for value in each.values() if value.dim()]
        tensors += [weight.grad for weight in stage.parameters() if weight.grad is not None]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    def step() -> int:
        task = torch.arange(50) * 20
        values = stage(State(torch.randn(50, 4), torch.arange(50)), task).values
        optimizer.zero_grad(set_to_none=True)
        values.sum().backward()
        optimizer.step()
        return size()

    stage.begin_epoch(0, Moments(optimizer))
    before = step()
    assert before >= 4 * tasks * stage.bank.block_parameters * 4  # Weights, gradient, two moments.
    old = [weakref.ref(weight) for weight in stage.bank.weights.values()]
    stage.freeze_assignment(Moments(optimizer))
    gc.collect()
    assert all(weight() is None for weight in old)
    labels = 8 * tasks
    assert step() - labels <= before * clusters / tasks + 100
