from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from coterie.training.clustering import Clustering, centers_of, cluster, match, recluster, spread


def groups(truth: list[int], *, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Weights ``[N, 7]`` of tasks of known clusters."""
    generator = np.random.default_rng(seed)
    means = generator.standard_normal((max(truth) + 1, 7))
    return (means[truth] + noise * generator.standard_normal((len(truth), 7))).astype(np.float32)


TRUTH = [0, 1, 2, 0, 1, 2, 2, 0]


def test_groups_of_similar_weights_are_found() -> None:
    weights = groups(TRUTH)
    found = cluster(weights, 3, seed=0)
    assert adjusted_rand_score(TRUTH, found.labels) == 1.0
    for label in range(3):
        np.testing.assert_allclose(found.centers[label], weights[found.labels == label].mean(0), rtol=1e-5)
    wanted = sum(((weights[j] - found.centers[found.labels[j]]) ** 2).sum() for j in range(8))
    assert found.inertia == pytest.approx(float(wanted), rel=1e-5)


def test_the_same_seed_finds_the_same() -> None:
    weights = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    first, second = cluster(weights, 4, seed=3), cluster(weights, 4, seed=3)
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.centers, second.centers)


def test_clusters_keep_their_names_when_weights_hardly_move() -> None:
    weights = groups(TRUTH)
    found = cluster(weights, 3, seed=0)
    first = found.labels.copy()
    generator = np.random.default_rng(1)
    for seed in range(20):
        weights = weights + 0.01 * generator.standard_normal(weights.shape).astype(np.float32)
        found = recluster(weights, found, seed=seed)
        assert np.array_equal(found.labels, first)


def test_a_task_that_moved_changes_its_cluster_and_nobody_else_does() -> None:
    weights = groups(TRUTH)
    before = cluster(weights, 3, seed=0)
    weights[0] = weights[1] + 0.01
    after = recluster(weights, before, seed=0)
    assert after.labels[0] == before.labels[1]
    assert np.array_equal(after.labels[1:], before.labels[1:])


@settings(max_examples=50)
@given(st.permutations(range(4)), st.integers(0, 1000))
def test_matching_undoes_any_renaming(names: list[int], seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.arange(11) % 4)
    centers = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)
    previous = Clustering(labels, centers, 1.5)
    renamed = np.empty_like(centers)
    renamed[names] = centers
    new = match(Clustering(np.array(names)[labels], renamed, 1.5), previous)
    assert np.array_equal(new.labels, labels)
    assert np.array_equal(new.centers, centers)
    assert new.inertia == 1.5


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=20))
def test_matching_renames_and_never_regroups(pairs: list[tuple[int, int]]) -> None:
    new, old = np.array(pairs).T
    centers = np.arange(4, dtype=np.float32).reshape(4, 1)
    found = match(Clustering(new, centers, 0.0), Clustering(old, centers, 0.0))
    assert adjusted_rand_score(new, found.labels) == 1.0
    assert np.array_equal(found.centers[found.labels], centers[new])
    # No renaming agrees with the old names on more tasks than this one.
    assert (found.labels == old).sum() >= (new == old).sum()


@pytest.mark.parametrize("distinct", [1, 2, 3])
def test_no_cluster_is_empty_even_where_there_are_too_few_distinct_weights(distinct: int) -> None:
    weights = groups([index % distinct for index in range(9)], noise=0.0)
    found = cluster(weights, 5, seed=0)
    assert sorted(set(found.labels.tolist())) == [0, 1, 2, 3, 4]
    again = recluster(weights, found, seed=0)
    assert sorted(set(again.labels.tolist())) == [0, 1, 2, 3, 4]
    assert np.isfinite(found.centers).all()


def test_an_emptied_cluster_takes_the_task_that_fits_worst() -> None:
    weights = groups([0, 0, 0, 1, 1, 1])
    previous = Clustering(np.array([0, 0, 0, 1, 1, 1]), np.zeros((3, 7), np.float32), 0.0)
    previous.centers[2] = 50.0
    weights[4] += 0.5
    found = recluster(weights, previous, seed=0)
    assert found.labels[4] not in found.labels[[0, 1, 2, 3, 5]]
    assert set(found.labels.tolist()) == {0, 1, 2}


def test_as_many_clusters_as_tasks_is_a_cluster_each() -> None:
    found = cluster(groups(TRUTH), 8, seed=0)
    assert sorted(found.labels.tolist()) == list(range(8))
    assert found.inertia == pytest.approx(0.0, abs=1e-9)


def test_an_empty_clusters_center_stays_where_it_was() -> None:
    fallback = np.full((3, 7), 9.0, dtype=np.float32)
    centers = centers_of(groups([0, 0, 1]), np.array([0, 0, 1]), fallback)
    assert np.array_equal(centers[2], fallback[2])
    assert not np.array_equal(centers[0], fallback[0])


def test_the_spread_is_the_inertia_relative_to_one_cluster() -> None:
    weights = groups(TRUTH)
    assert spread(weights, cluster(weights, 1, seed=0)) == pytest.approx(1.0, rel=1e-4)
    assert spread(weights, cluster(weights, 8, seed=0)) == pytest.approx(0.0, abs=1e-6)
    assert spread(weights, cluster(weights, 3, seed=0)) < 0.01
    alike = np.ones((4, 2), dtype=np.float32)
    assert spread(alike, cluster(alike, 2, seed=0)) == 0.0
