"""KMeans over the tasks' weights, followed from batch to batch (NCMTL, Algorithm 1, lines 6 and 7)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Clustering:
    """A grouping of N tasks.

    Attributes:
        labels: ``[N]``, the cluster of each task, 0 to K - 1.
        centers: ``[K, P]``, the mean weights of each cluster; equation 1's c_k.
        inertia: Sum of squared distances to the centres; equation 1's L_c of this layer.
    """

    labels: Ints
    centers: Floats
    inertia: float


def cluster(weights: Floats, clusters: int, *, seed: int, restarts: int = 10) -> Clustering:
    """Group N rows of weights ``[N, P]`` afresh by KMeans++, the best of ``restarts``."""
    return _kmeans(weights, clusters, init="k-means++", restarts=restarts, seed=seed)


def recluster(weights: Floats, previous: Clustering, *, seed: int) -> Clustering:
    """Group again, starting from the previous centres, so that clusters keep their identities."""
    start = centers_of(weights, previous.labels, previous.centers)
    return _kmeans(weights, len(previous.centers), init=start, restarts=1, seed=seed)


def match(new: Clustering, previous: Clustering) -> Clustering:
    """Rename the new clusters so that they agree with the previous ones on as many tasks as possible."""
    clusters = len(new.centers)
    overlap = np.zeros((clusters, clusters), dtype=np.int64)
    np.add.at(overlap, (new.labels, previous.labels), 1)
    _, names = linear_sum_assignment(-overlap)
    centers = np.empty_like(new.centers)
    centers[names] = new.centers
    return Clustering(np.asarray(names, dtype=np.int64)[new.labels], centers, new.inertia)


def centers_of(weights: Floats, labels: Ints, fallback: Floats) -> Floats:
    """Return the mean weights of each cluster, ``[K, P]``; an empty cluster keeps its ``fallback`` row."""
    centers = fallback.copy()
    for label in np.unique(labels):
        centers[label] = weights[labels == label].mean(axis=0)
    return centers


def spread(weights: Floats, clustering: Clustering) -> float:
    """Return the inertia relative to that of one cluster for all: 0 is perfect, 1 explains nothing."""
    total = float(((weights - weights.mean(axis=0)) ** 2).sum())
    return clustering.inertia / total if total > 0 else 0.0


def _kmeans(weights: Floats, clusters: int, *, init: str | Floats, restarts: int, seed: int) -> Clustering:
    with warnings.catch_warnings():
        # Fewer distinct rows than clusters is legal here: right after a replacement, say.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(clusters, init=init, n_init=restarts, random_state=seed).fit(weights)
    labels = found.labels_.astype(np.int64)
    if len(np.unique(labels)) < clusters:
        labels = _fill_empty(weights, labels, clusters)
    centers = centers_of(weights, labels, found.cluster_centers_.astype(np.float32))
    inertia = float(((weights - centers[labels]) ** 2).sum())
    return Clustering(labels, centers, inertia)


def _fill_empty(weights: Floats, labels: Ints, clusters: int) -> Ints:
    """Give each empty cluster the task that lies farthest from its own centre, out of a shared cluster."""
    labels = labels.copy()
    for empty in sorted(set(range(clusters)) - set(labels.tolist())):
        centers = centers_of(weights, labels, np.zeros((clusters, weights.shape[1]), dtype=np.float32))
        distance = ((weights - centers[labels]) ** 2).sum(axis=1)
        shared = np.bincount(labels, minlength=clusters)[labels] > 1
        labels[int(np.argmax(np.where(shared, distance, -1.0)))] = empty
    return labels
