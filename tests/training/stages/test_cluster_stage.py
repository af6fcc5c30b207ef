from __future__ import annotations

import copy

import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from tests.training.clusters import GROUPS, K, N, centroid_of, clustered, rows_of, run_with, stage_of
from tests.training.making import count_rows, linear_bank, no_moments, questions
from torch import nn

from coterie.training.dispatch import State
from coterie.training.moments import Moments
from coterie.training.stages import ClusterStage


def test_tasks_are_unclustered_in_the_warmup_and_grouped_after_it() -> None:
    stage = stage_of(start=1, warmup=2)
    for epoch in range(3):
        stage.begin_epoch(epoch, no_moments())
        stage.after_step(epoch, 0, no_moments())
        assert not stage.clustered
    stage.begin_epoch(3, no_moments())
    stage.after_step(3, 0, no_moments())
    assert adjusted_rand_score(GROUPS, stage.labels) == 1.0


def test_in_the_warmup_each_task_computes_with_its_own_weights() -> None:
    stage, inputs = stage_of(), torch.randn(N, 4)
    state = stage(State(inputs, torch.arange(N)), torch.arange(N))
    for task in range(N):
        wanted = run_with(stage, rows_of(stage, task), inputs[task : task + 1])
        torch.testing.assert_close(state.values[state.position[task]].unsqueeze(0), wanted)


def test_a_waiting_layer_is_one_hard_layer() -> None:
    """One SGD step of it is the step of a layer that all tasks share."""
    torch.manual_seed(1)
    stage = ClusterStage("layer", N, linear_bank(N, alike=True), clusters=2, start=2)
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(stage.bank.weights["layer/weight"][0])
        layer.bias.copy_(stage.bank.weights["layer/bias"][0])
    inputs, factor = torch.randn(9, 4), torch.randn(9, 3)
    row, task = torch.arange(9), torch.arange(9) % N
    rows = count_rows(stage.bank)
    state = stage(State(inputs, row), task)
    assert rows == [9]
    mine, theirs = torch.optim.SGD(stage.parameters(), lr=0.1), torch.optim.SGD(layer.parameters(), lr=0.1)
    (state.values[state.position] * factor).sum().backward()
    (torch.relu(layer(inputs)) * factor).sum().backward()
    mine.step()
    theirs.step()
    for task_ in range(N):
        torch.testing.assert_close(stage.bank.weights["layer/weight"][task_], layer.weight)
        torch.testing.assert_close(stage.bank.weights["layer/bias"][task_], layer.bias)


def test_tasks_part_only_once_their_layer_starts() -> None:
    stage = ClusterStage("layer", N, linear_bank(N, alike=True), clusters=2, start=2, warmup=1)
    assert stage.plan().uses == ((0,),) * N
    for epoch, alone in [(0, False), (1, False), (2, True)]:
        stage.begin_epoch(epoch, no_moments())
        assert (stage.plan().uses == tuple((task,) for task in range(N))) == alone


def test_a_clustered_task_computes_with_its_centroid() -> None:
    for training in (True, False):
        stage = clustered().train(training)
        inputs = torch.randn(N, 4)
        state = stage(State(inputs, torch.arange(N)), torch.arange(N))
        for task in range(N):
            wanted = run_with(stage, centroid_of(stage, task), inputs[task : task + 1])
            torch.testing.assert_close(state.values[state.position[task]].unsqueeze(0), wanted)


def test_shadow_weights_take_each_tasks_own_gradient_at_the_centroid() -> None:
    stage = clustered()
    inputs, factor = torch.randn(5, 4), torch.randn(17, 3)
    row, task = questions(17, rows=5, number_of_tasks=N - 1)  # The last task has no question.
    state = stage(State(inputs, row), task)
    (state.values[state.position] * factor).sum().backward()
    for number in range(N):
        weights = {name: weight.requires_grad_() for name, weight in centroid_of(stage, number).items()}
        asked = task == number
        (run_with(stage, weights, inputs[row[asked]]) * factor[asked]).sum().backward()
        for name, weight in weights.items():
            torch.testing.assert_close(stage.bank.weights[name].grad[number], weight.grad)


def test_in_evaluation_a_centroid_runs_once_for_all_its_tasks() -> None:
    stage = clustered().eval()
    rows = count_rows(stage.bank)
    stage(State(torch.randn(1, 4), torch.zeros(N, dtype=torch.int64)), torch.arange(N))
    assert rows == [1] * K


def test_the_penalty_is_equation_1_times_alpha() -> None:
    stage = clustered(pull=0.7)
    flat = stage.bank.flat().numpy()
    total = 0.0
    for j in range(N):
        for k in range(K):
            if stage.labels[j] == k:
                center = flat[stage.labels.numpy() == k].mean(axis=0)
                total += float(((flat[j] - center) ** 2).sum())
    assert total > 0
    assert stage.penalty().item() == pytest.approx(0.7 * total, rel=1e-5)
    assert stage.report()["clustering_loss"] == pytest.approx(total, rel=1e-5)


def test_the_penalty_pulls_each_task_to_its_centroid() -> None:
    stage = clustered(pull=0.7)
    stage.penalty().backward()
    for task in range(N):
        for name, center in centroid_of(stage, task).items():
            weight = stage.bank.weights[name]
            torch.testing.assert_close(weight.grad[task], 2 * 0.7 * (weight[task].detach() - center))


def test_nothing_is_pulled_before_the_first_clustering_nor_after_the_freeze() -> None:
    stage = stage_of(pull=0.7)
    assert stage.penalty().item() == 0.0
    stage.freeze_assignment()
    assert stage.penalty().item() == 0.0


def test_a_task_leaves_its_cluster_when_its_own_weights_move_away() -> None:
    stage = clustered()
    before = stage.labels.clone()
    with torch.no_grad():
        for weight in stage.bank.weights.values():
            weight[0] = weight[1] + 0.01
    stage.after_step(0, 1, no_moments())
    assert stage.labels[0] == before[1]
    assert torch.equal(stage.labels[1:], before[1:])


@pytest.mark.parametrize("mode", ["shadow", "literal"])
def test_names_of_clusters_do_not_change_when_nothing_does(mode: str) -> None:
    stage = clustered(mode=mode)
    before, moments = stage.labels.clone(), no_moments()
    for epoch in range(1, 6):
        stage.begin_epoch(epoch, moments)
        for step in range(3):
            stage.after_step(epoch, step, moments)
        assert torch.equal(stage.labels, before)


def test_a_better_grouping_is_found_at_the_next_epoch() -> None:
    """KMeans that goes on from its centres stays where two groups are one cluster and one is two."""
    truth = [0] * 4 + [1] * 4 + [2] * 4
    stage = stage_of(truth, warmup=0)
    with torch.no_grad():
        for weight in stage.bank.weights.values():
            distance = torch.tensor([0.0, 3.0, 100.0])[truth]
            weight.copy_(distance.reshape(-1, *[1] * (weight.dim() - 1)) + 0.5 * torch.randn(weight.shape))
    bad = torch.tensor([0] * 8 + [1, 1, 2, 2])
    stage.labels.copy_(bad)
    flat = stage.bank.flat()
    stage.centers = torch.stack([flat[bad == label].mean(0) for label in range(3)])
    stage.after_step(0, 1, no_moments())
    assert adjusted_rand_score(truth, stage.labels) < 1.0
    for epoch in range(1, 9):  # From other random starts each, KMeans names its clusters otherwise.
        better = copy.deepcopy(stage)
        better.begin_epoch(epoch, no_moments())
        assert adjusted_rand_score(truth, better.labels) == 1.0
        # The clusters keep the names that most of their tasks had.
        assert 0 in better.labels[:8]
        assert 0 not in better.labels[8:]


def test_centroids_follow_their_tasks_between_two_clusterings() -> None:
    stage = clustered(every=4)
    before = stage.labels.clone()
    with torch.no_grad():
        for weight in stage.bank.weights.values():
            weight.add_(1.0)
            weight[0] = weight[1]
    stage.after_step(0, 1, no_moments())
    assert torch.equal(stage.labels, before)
    for task in range(N):
        wanted = torch.cat([part.flatten() for part in centroid_of(stage, task).values()])
        torch.testing.assert_close(stage.centers[stage.labels[task]], wanted)
    stage.after_step(0, 4, no_moments())
    assert stage.labels[0] == stage.labels[1]


def test_the_pull_rises_over_its_warmup() -> None:
    stage, strengths = stage_of(start=1, warmup=1, pull=0.8, pull_warmup=4), []
    for epoch in range(8):
        stage.begin_epoch(epoch, no_moments())
        stage.after_step(epoch, 0, no_moments())
        loss = stage.report().get("clustering_loss")
        strengths.append(None if loss is None else round(stage.penalty().item() / loss, 4))
    assert strengths == [None, None, 0.0, 0.2, 0.4, 0.6, 0.8, 0.8]


def test_a_task_let_loose_moves_as_fast_as_one_that_was_never_tied() -> None:
    def moved(start: int) -> float:
        stage = stage_of(noise=0.0, start=start, warmup=9)
        optimizer = torch.optim.Adam(stage.parameters(), lr=0.1)
        inputs, task = torch.randn(N, 4), torch.arange(N)
        before = stage.bank.flat()
        for epoch in range(3):
            stage.begin_epoch(epoch, Moments(optimizer))
            if epoch == start:
                before = stage.bank.flat()
            optimizer.zero_grad()
            # While they are tied, the gradients of all tasks add up.
            goal = 1.0 if epoch >= start else 1000.0
            state = stage(State(inputs, task), task)
            (goal * state.values).sum().backward()
            optimizer.step()
            if epoch == start:
                return float((stage.bank.flat() - before).abs().max())
        return 0.0

    assert moved(2) == pytest.approx(moved(0), rel=0.01)
