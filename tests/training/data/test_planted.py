from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.random import default_rng

from coterie.training.data import Dataset, PlantedConfig, Truth, load_data
from coterie.training.data._planted import cluster_tree


def planted(**options: object) -> tuple[Dataset, Truth]:
    data = load_data(
        PlantedConfig.model_validate({"train_rows": 40, "dev_rows": 10, "test_rows": 20, **options})
    )
    assert data.truth is not None
    return data, data.truth


@pytest.mark.parametrize("clusters", [(1,), (3,), (2, 2), (2, 4, 8), (3, 5, 10)])
@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_nested_balanced_and_complete(clusters: tuple[int, ...], seed: int) -> None:
    tree = cluster_tree(21, clusters, default_rng(seed))
    assert [len(set(layer)) for layer in tree] == list(clusters)
    sizes = np.bincount(tree[-1])
    assert sizes.max() - sizes.min() <= 1
    for coarse, fine in pairwise(tree):
        assert len(set(zip(fine.tolist(), coarse.tolist(), strict=True))) == len(set(fine))


@pytest.mark.parametrize("sets", [None, 3])
def test_each_task_mixes_its_number_of_experts_and_all_are_used(sets: int | None) -> None:
    _, truth = planted(tasks=9, experts=5, experts_per_task=2, expert_sets=sets)
    assert truth.experts.shape == (9, 5)
    assert (truth.experts.sum(axis=1) == 2).all()
    assert (truth.experts.sum(axis=0) > 0).all()
    assert ((truth.weights != 0) == (truth.experts == 1)).all()
    if sets:
        assert len(np.unique(truth.experts, axis=0)) == sets


def test_either_part_can_be_left_out() -> None:
    data, truth = planted(tasks=4, experts=0, clusters=(2,))
    assert truth.experts.shape == (4, 0)
    assert len(truth.assignments) == 1
    data, truth = planted(tasks=4, experts=3, clusters=())
    assert truth.assignments == ()
    data, truth = planted(tasks=4, trunk=8)
    assert len(data.splits["train"]) == 160


def test_the_seed_decides_everything() -> None:
    first, second, other = (planted(experts=4, clusters=(2, 3), seed=seed)[0] for seed in (1, 1, 2))
    assert first.sha256 == second.sha256 != other.sha256


def test_rows_belong_to_a_task_or_to_all() -> None:
    data, _ = planted(tasks=5, features=7)
    train = data.splits["train"]
    assert train.inputs.batch(train.row).shape == (200, 7)
    assert len(train.inputs) == 200
    data, _ = planted(tasks=5, shared_inputs=True)
    assert len(data.splits["train"].inputs) == 40
    assert len(data.splits["train"]) == 200
    assert np.array_equal(np.bincount(data.splits["train"].row), np.full(40, 5))


def test_regression_targets_are_standardised_with_noise() -> None:
    data, _ = planted(tasks=3, experts=4, clusters=(2,), outputs=2, noise=0.5, train_rows=3000)
    target = data.splits["train"].target
    assert target.shape == (9000, 2)
    assert np.allclose(target.mean(axis=0), 0, atol=0.1)
    assert np.allclose(target.std(axis=0), np.sqrt(1.25), atol=0.1)


def test_classification_uses_every_class() -> None:
    data, _ = planted(tasks=3, clusters=(2,), task_kind="classification", outputs=3, train_rows=600)
    assert all(task.width == 3 for task in data.tasks)
    for task in range(3):
        share = (
            np.bincount(data.splits["train"].target[data.splits["train"].of_task(task), 0].astype(int)) / 600
        )
        assert share.min() > 0.1


def test_tasks_of_one_cluster_share_a_representation_and_others_do_not() -> None:
    # Without noise a task's answers are linear in its cluster's states: those of the cluster's other tasks
    # span them, and those of another cluster's tasks do not.
    data, truth = planted(
        tasks=12, features=4, width=4, clusters=(2,), noise=0.0, shared_inputs=True, train_rows=400
    )
    train = data.splits["train"]
    answers = np.stack([train.target[train.of_task(task), 0] for task in range(12)], axis=1).astype(
        np.float64
    )

    def unexplained(task: int, others: np.ndarray) -> float:
        basis = np.column_stack([answers[:, others], np.ones(400)])
        fitted = basis @ np.linalg.lstsq(basis, answers[:, task], rcond=None)[0]
        return float(np.mean((answers[:, task] - fitted) ** 2))

    cluster = truth.assignments[0]
    for task in range(12):
        same = np.flatnonzero((cluster == cluster[task]) & (np.arange(12) != task))
        other = np.flatnonzero(cluster != cluster[task])
        assert unexplained(task, same) < 1e-6
        assert unexplained(task, other) > 1e-3
