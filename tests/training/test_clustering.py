from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from coterie.training.clustering import (
    Clustering,
    choose_clusters,
    cluster,
    clustering_of,
    match,
    recluster,
    spread,
)


def groups(truth: list[int], *, noise: float = 0.01, seed: int = 0) -> Tensor:
    """Weights ``[N, 7]`` of tasks of known clusters."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(max(truth) + 1, 7, generator=generator)
    return means[truth] + noise * torch.randn(len(truth), 7, generator=generator)


TRUTH = [0, 1, 2, 0, 1, 2, 2, 0]


def test_groups_of_similar_weights_are_found() -> None:
    weights = groups(TRUTH)
    found = cluster(weights, 3, seed=0)
    assert adjusted_rand_score(TRUTH, found.labels) == 1.0
    for label in range(3):
        torch.testing.assert_close(found.centers[label], weights[found.labels == label].mean(0))
    wanted = sum(((weights[j] - found.centers[found.labels[j]]) ** 2).sum() for j in range(8))
    assert found.inertia == pytest.approx(float(wanted), rel=1e-5)


def test_the_same_seed_finds_the_same() -> None:
    weights = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    first, second = cluster(weights, 4, seed=3), cluster(weights, 4, seed=3)
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.centers, second.centers)


def test_clusters_keep_their_names_when_weights_hardly_move() -> None:
    weights = groups(TRUTH)
    found = cluster(weights, 3, seed=0)
    first, generator = found.labels, torch.Generator().manual_seed(1)
    for _ in range(20):
        weights = weights + 0.01 * torch.randn(weights.shape, generator=generator)
        found = recluster(weights, found.labels, 3)
        assert torch.equal(found.labels, first)


def test_a_task_that_moved_changes_its_cluster_and_nobody_else_does() -> None:
    weights = groups(TRUTH)
    before = cluster(weights, 3, seed=0)
    weights[0] = weights[1] + 0.01
    after = recluster(weights, before.labels, 3)
    assert after.labels[0] == before.labels[1]
    assert torch.equal(after.labels[1:], before.labels[1:])


def test_small_differences_between_large_weights_are_seen() -> None:
    """|a - b|^2 = |a|^2 - 2 ab + |b|^2 in single precision would be nothing but rounding here."""
    weights = 1000.0 + 0.01 * groups(TRUTH)
    found = recluster(weights, torch.tensor([0, 1, 2, 0, 1, 2, 2, 1]), 3)
    assert adjusted_rand_score(TRUTH, found.labels) == 1.0


@settings(max_examples=30)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_grouping_again_ends_where_every_task_is_in_the_nearest_cluster(seed: int, clusters: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(12, 3, generator=generator)
    found = recluster(weights, torch.arange(12) % clusters, clusters)
    torch.testing.assert_close(torch.cdist(weights, found.centers).argmin(1), found.labels)
    assert found.inertia <= clustering_of(weights, torch.arange(12) % clusters, clusters).inertia + 1e-4


@settings(max_examples=50)
@given(st.permutations(range(4)), st.integers(0, 1000))
def test_matching_undoes_any_renaming(names: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(11) % 4)[torch.randperm(11, generator=generator)]
    centers = torch.randn(4, 3, generator=generator)
    renamed = torch.empty_like(centers)
    renamed[names] = centers
    new = match(Clustering(torch.tensor(names)[labels], renamed, 1.5), labels)
    assert torch.equal(new.labels, labels)
    assert torch.equal(new.centers, centers)
    assert new.inertia == 1.5


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=20))
def test_matching_renames_and_never_regroups(pairs: list[tuple[int, int]]) -> None:
    new, old = torch.tensor(pairs).T
    centers = torch.arange(4.0).reshape(4, 1)
    found = match(Clustering(new, centers, 0.0), old)
    assert adjusted_rand_score(new, found.labels) == 1.0
    assert torch.equal(found.centers[found.labels], centers[new])
    # No renaming agrees with the old names on more tasks than this one.
    assert (found.labels == old).sum() >= (new == old).sum()


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_no_cluster_is_empty_even_where_there_are_too_few_distinct_weights(distinct: int) -> None:
    weights = groups([index % distinct for index in range(9)], noise=0.0)
    found = cluster(weights, 5, seed=0)
    assert sorted(set(found.labels.tolist())) == [0, 1, 2, 3, 4]
    again = recluster(weights, found.labels, 5)
    assert sorted(set(again.labels.tolist())) == [0, 1, 2, 3, 4]
    assert torch.isfinite(found.centers).all()


def test_an_emptied_cluster_takes_the_task_that_fits_worst() -> None:
    weights = groups([0, 0, 0, 1, 1, 1])
    weights[4] += 0.5
    found = recluster(weights, torch.tensor([0, 0, 0, 1, 1, 1]), 3)
    assert found.labels[4] not in found.labels[[0, 1, 2, 3, 5]]
    assert set(found.labels.tolist()) == {0, 1, 2}


def test_as_many_clusters_as_tasks_is_a_cluster_each() -> None:
    found = cluster(groups(TRUTH), 8, seed=0)
    assert sorted(found.labels.tolist()) == list(range(8))
    assert found.inertia == pytest.approx(0.0, abs=1e-9)


def test_the_spread_is_the_inertia_relative_to_one_cluster() -> None:
    weights = groups(TRUTH)
    assert spread(weights, cluster(weights, 1, seed=0)) == pytest.approx(1.0, rel=1e-4)
    assert spread(weights, cluster(weights, 8, seed=0)) == pytest.approx(0.0, abs=1e-6)
    assert spread(weights, cluster(weights, 3, seed=0)) < 0.01
    alike = torch.ones(4, 2)
    assert spread(alike, cluster(alike, 2, seed=0)) == 0.0


def losses(mean: dict[int, float], clusters: int, *, error: float = 0.0) -> Tensor:
    """Dev losses of 9 tasks: a mean for each number of clusters, and a noise of known error over tasks."""
    noise = torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, 0.0])
    return torch.full((9,), mean[clusters]) + clusters * error * noise


def test_the_least_number_that_is_about_as_good_as_the_best_is_chosen() -> None:
    mean = {1: 1.0, 2: 0.6, 3: 0.31, 4: 0.30, 5: 0.29, 6: 0.295}
    chosen, tried = choose_clusters(6, lambda clusters: losses(mean, clusters))
    assert chosen == 3  # It loses 0.02 of the 0.71 that 5 clusters win.
    assert tried == pytest.approx(mean)


def test_a_difference_within_its_own_error_does_not_count() -> None:
    mean = {1: 0.305, 2: 0.302, 3: 0.30}
    assert choose_clusters(3, lambda clusters: losses(mean, clusters))[0] == 3
    assert choose_clusters(3, lambda clusters: losses(mean, clusters, error=0.02))[0] == 1


def test_of_many_numbers_few_are_tried_and_the_best_is_still_found() -> None:
    mean = {clusters: 1.0 + abs(clusters - 41) for clusters in range(1, 101)}
    chosen, tried = choose_clusters(100, lambda clusters: losses(mean, clusters))
    assert 39 <= chosen <= 41
    assert len(tried) < 45


def test_each_of_many_clumps_gets_a_centre() -> None:
    generator = np.random.default_rng(0)
    clump = np.repeat(np.arange(60), 8)
    rows = generator.standard_normal((60, 5))[clump] + 0.05 * generator.standard_normal((len(clump), 5))
    found = cluster(torch.from_numpy(rows).float(), 60, seed=0, restarts=1)
    assert adjusted_rand_score(clump, found.labels) == 1.0
