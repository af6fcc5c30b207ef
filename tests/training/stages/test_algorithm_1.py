from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from tests.training.clusters import N, stage_of
from tests.training.making import model_of, questions, tasks
from torch import Tensor, nn

from coterie.training import MultiTaskModel
from coterie.training.moments import Moments


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
