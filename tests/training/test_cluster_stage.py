from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from tests.training.making import count_rows, linear_bank, model_of, no_moments, questions, tasks
from torch import Tensor, nn
from torch.func import functional_call

from coterie.training import MultiTaskModel
from coterie.training.dispatch import State
from coterie.training.moments import Moments
from coterie.training.stages import ClusterStage

N, K = 6, 3
GROUPS = [0, 1, 2, 0, 1, 2]


def stage_of(
    truth: list[int] = GROUPS, *, clusters: int = K, noise: float = 0.05, **options: object
) -> ClusterStage:
    """A cluster layer whose tasks' weights are in known groups."""
    torch.manual_seed(0)
    stage = ClusterStage(
        "layer", len(truth), linear_bank(len(truth), alike=True), clusters=clusters, **options
    )
    with torch.no_grad():
        for weight in stage.bank.weights.values():
            means = torch.randn(max(truth) + 1, *weight.shape[1:])
            weight.copy_(means[truth] + noise * torch.randn(weight.shape))
    return stage


def clustered(truth: list[int] = GROUPS, **options: object) -> ClusterStage:
    stage = stage_of(truth, warmup=0, **options)
    stage.after_step(0, 0, no_moments())
    assert stage.clustered
    return stage


def run_with(stage: ClusterStage, weights: dict[str, Tensor], inputs: Tensor) -> Tensor:
    named = {name.replace("/", "."): weight for name, weight in weights.items()}
    return functional_call(stage.bank.template, named, (inputs,))


def rows_of(stage: ClusterStage, task: int) -> dict[str, Tensor]:
    return {name: weight[task].detach() for name, weight in stage.bank.weights.items()}


def centroid_of(stage: ClusterStage, task: int) -> dict[str, Tensor]:
    """The mean of the weights of the tasks in one task's cluster."""
    members = [other for other in range(stage.tasks) if stage.labels[other] == stage.labels[task]]
    return {
        name: torch.stack([weight[other].detach() for other in members]).mean(0)
        for name, weight in stage.bank.weights.items()
    }


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
    stage.centers.copy_(torch.stack([flat[bad == label].mean(0) for label in range(3)]))
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


# ---- Algorithm 1


def best_partition(weights: np.ndarray, clusters: int) -> list[int]:
    """The grouping of the least inertia, by trying them all."""
    best, found = np.inf, []
    for labels in itertools.product(range(clusters), repeat=len(weights)):
        if len(set(labels)) < clusters:
            continue
        inertia = 0.0
        for label in range(clusters):
            own = weights[np.array(labels) == label]
            inertia += float(((own - own.mean(0)) ** 2).sum())
        if inertia < best:
            best, found = inertia, list(labels)
    return found


class Reference:
    """Algorithm 1, one module a task: lines 3 and 4 by Adam, lines 6 and 7 after it."""

    def __init__(self, model: MultiTaskModel, lr: float) -> None:
        stage = model.cluster_stages()[0]
        self.layers = [copy.deepcopy(stage.bank.template) for _ in range(stage.tasks)]
        for task, layer in enumerate(self.layers):
            layer.load_state_dict(stage.bank.tensors(task))
            layer.requires_grad_(True)
        head = model.head
        self.weights = [nn.Parameter(each.detach().clone()) for each in head.weights[0]]
        self.biases = [nn.Parameter(each.detach().clone()) for each in head.biases[0]]
        layers = [parameter for layer in self.layers for parameter in layer.parameters()]
        self.optimizer = torch.optim.Adam([*layers, *self.weights, *self.biases], lr=lr)

    def step(self, inputs: Tensor, row: Tensor, task: Tensor, target: Tensor, clusters: int) -> None:
        losses = []
        for r, t, y in zip(row.tolist(), task.tolist(), target.tolist(), strict=True):
            scores = self.layers[t](inputs[r]) @ self.weights[t] + self.biases[t]
            losses.append(nn.functional.cross_entropy(scores.unsqueeze(0), torch.tensor([y])))
        self.optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        self.optimizer.step()
        self.labels = best_partition(self.flat(), clusters)
        for label in range(clusters):
            members = [layer for layer, own in zip(self.layers, self.labels, strict=True) if own == label]
            for parameters in zip(*(layer.parameters() for layer in members), strict=True):
                mean = torch.stack([each.detach() for each in parameters]).mean(0)
                for key in ("exp_avg", "exp_avg_sq"):
                    moment = torch.stack([self.optimizer.state[each][key] for each in parameters]).mean(0)
                    for each in parameters:
                        self.optimizer.state[each][key] = moment.clone()
                for each in parameters:
                    each.data.copy_(mean)

    def flat(self) -> np.ndarray:
        return np.stack(
            [
                torch.cat([each.detach().flatten() for each in layer.parameters()]).numpy()
                for layer in self.layers
            ]
        )


def test_the_literal_mode_is_algorithm_1() -> None:
    torch.manual_seed(0)
    specs = tasks(5)
    stages = [
        {
            "kind": "cluster",
            "clusters": 2,
            "mode": "literal",
            "warmup": 0,
            "pull": 0.3,
            "block": {"kind": "linear", "width": 3, "activation": "tanh"},
        }
    ]
    model = model_of(stages, specs, size=4)
    reference = Reference(model, lr=0.05)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    moments, stage = Moments(optimizer), model.cluster_stages()[0]
    inputs = torch.randn(30, 4)
    for step in range(6):
        row, task = questions(40, rows=30, number_of_tasks=5, seed=step)
        # Tasks 0, 2 and 4 ask one thing, the others the opposite.
        target = ((inputs[row, 0] > 0) ^ (task % 2 == 1)).long()
        loss = nn.functional.cross_entropy(model(inputs, row, task), target) + model.penalty()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        stage.after_step(0, step, moments)
        reference.step(inputs, row, task, target, 2)
        assert adjusted_rand_score(reference.labels, stage.labels) == 1.0
        np.testing.assert_allclose(stage.bank.flat().numpy(), reference.flat(), rtol=1e-4, atol=1e-5)
    # What is compared is not trivial: there are two clusters, and both have moved.
    assert len(set(stage.labels.tolist())) == 2
    assert len(np.unique(reference.flat().round(4), axis=0)) == 2


def test_the_literal_mode_gives_the_tasks_of_a_cluster_one_optimiser_memory() -> None:
    stage = stage_of(mode="literal", warmup=0)
    optimizer = torch.optim.Adam(stage.parameters(), lr=1e-6)
    for weight in stage.bank.weights.values():
        weight.grad = torch.randn(weight.shape)
    optimizer.step()
    before = {name: optimizer.state[w]["exp_avg"].clone() for name, w in stage.bank.weights.items()}
    stage.after_step(0, 0, Moments(optimizer))
    for name, weight in stage.bank.weights.items():
        for task in range(N):
            own = [other for other in range(N) if stage.labels[other] == stage.labels[task]]
            torch.testing.assert_close(optimizer.state[weight]["exp_avg"][task], before[name][own].mean(0))
            assert torch.equal(weight[task], weight[own[0]])


# ---- the freeze


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


def test_shrinking_makes_room_for_a_frozen_layers_weights() -> None:
    stage, fresh = clustered(), stage_of()
    stage.freeze_assignment()
    fresh.shrink()
    fresh.load_state_dict(stage.state_dict())
    assert torch.equal(fresh.bank.flat(), stage.bank.flat())
    assert fresh.frozen
