"""KMeans over the tasks' rows, followed from batch to batch (NCMTL, Algorithm 1, lines 6 and 7).

A row is what tasks are compared by, their weights above all. Fresh starts are scikit-learn's KMeans++;
between them a grouping is only corrected, at the price of a matrix product.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from coterie.training.moments import group_mean

_ROUNDS = 10
"""Most rounds of Lloyd's algorithm that correct a grouping; after one batch, little is left to find."""
_WARD = 4000
"""Most rows that Ward's method is tried on: it compares all with all."""
_SLACK = 0.05
"""Share of what the best number of clusters wins that a smaller number may lose."""


@dataclass(frozen=True)
class Clustering:
    """A grouping of N tasks.

    Attributes:
        labels: ``[N]`` int64, the cluster of each task, 0 to K - 1; no cluster is empty.
        centers: ``[K, P]``, the mean row of each cluster; equation 1's c_k.
        inertia: Sum of squared distances to the centres; equation 1's L_c of this layer.
    """

    labels: Tensor
    centers: Tensor
    inertia: float


def cluster(rows: Tensor, clusters: int, *, seed: int, restarts: int = 10) -> Clustering:
    """Group N rows ``[N, P]`` afresh by KMeans, the best of ``restarts`` KMeans++ starts and one of Ward's.

    Random starts hardly ever put one centre into each of many clumps; Ward's method (1963), which joins the
    two groups that cost least, again and again, does.
    """
    if clusters == 1:
        return clustering_of(rows, torch.zeros(len(rows), dtype=torch.int64, device=rows.device), 1)
    points = rows.cpu().numpy()
    with warnings.catch_warnings():
        # Fewer distinct rows than clusters is legal here: right after a replacement, say.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = KMeans(clusters, n_init=restarts, random_state=seed).fit(points)
        if len(points) <= _WARD:
            joined = torch.from_numpy(AgglomerativeClustering(clusters).fit_predict(points))
            starts = group_mean(rows.cpu(), joined, clusters).numpy()
            joined = KMeans(clusters, init=starts, n_init=1).fit(points)
            found = min(found, joined, key=lambda each: each.inertia_)
    labels = torch.from_numpy(found.labels_.astype(np.int64)).to(rows.device)
    return clustering_of(rows, _fill_empty(rows, labels, clusters), clusters)


def recluster(rows: Tensor, labels: Tensor, clusters: int) -> Clustering:
    """Group again from the previous grouping ``[N]``: clusters keep their names (Lloyd's algorithm)."""
    # Rows differ little from one another compared with their length: distances would drown in rounding.
    centred = rows - rows.mean(dim=0)
    for _ in range(_ROUNDS):
        centers = group_mean(centred, labels, clusters)
        # |row|^2 is the same for every centre.
        distance = (centers**2).sum(dim=1) - 2.0 * centred @ centers.T
        nearest = _fill_empty(centred, distance.argmin(dim=1), clusters)
        if torch.equal(nearest, labels):
            break
        labels = nearest
    return clustering_of(rows, labels, clusters)


def match(new: Clustering, labels: Tensor) -> Clustering:
    """Rename the new clusters so that they agree with the previous ``[N]`` on as many tasks as possible."""
    clusters = len(new.centers)
    pairs = (new.labels * clusters + labels).cpu()
    overlap = torch.bincount(pairs, minlength=clusters * clusters).reshape(clusters, clusters)
    names = torch.from_numpy(linear_sum_assignment(-overlap.numpy())[1]).to(labels.device)
    centers = torch.empty_like(new.centers)
    centers[names] = new.centers
    return Clustering(names[new.labels], centers, new.inertia)


def clustering_of(rows: Tensor, labels: Tensor, clusters: int) -> Clustering:
    """Return the grouping of rows ``[N, P]`` by labels ``[N]``, with its centres."""
    centers = group_mean(rows, labels, clusters)
    return Clustering(labels, centers, float(((rows - centers[labels]) ** 2).sum()))


def choose_clusters(most: int, losses_of: Callable[[int], Tensor]) -> tuple[int, dict[int, float]]:
    """Choose K, 1 to ``most``: the least that is about as good on dev as the best.

    That is, worse by no more than one standard error of the difference over tasks (Breiman et al. 1984), or
    by no more than a twentieth of what the best wins over one cluster for all. Of many numbers some are tried
    first, each a quarter more than the last, and then all those around the choice.

    Args:
        most: The largest K.
        losses_of: Returns each task's dev loss ``[N]`` when they are grouped into K clusters.

    Returns:
        K, and the mean loss of every number tried.
    """
    losses: dict[int, Tensor] = {}
    number = 1
    while number < most:
        losses[number] = losses_of(number)
        number = max(number + 1, number * 5 // 4)
    losses[most] = losses_of(most)
    tried = sorted(losses)
    place = tried.index(_least(losses))
    around = tried[max(0, place - 1) : place + 2]
    losses |= {each: losses_of(each) for each in range(around[0], around[-1]) if each not in losses}
    return _least(losses), {each: float(losses[each].mean()) for each in sorted(losses)}


def _least(losses: dict[int, Tensor]) -> int:
    best = min(losses.values(), key=lambda each: float(each.mean()))
    won = float((losses[1] - best).mean())

    def good(number: int) -> bool:
        worse = losses[number] - best
        error = float(worse.std(correction=0)) / math.sqrt(len(worse))
        return float(worse.mean()) <= max(error, _SLACK * won)

    return min(filter(good, losses))


def spread(rows: Tensor, clustering: Clustering) -> float:
    """Return the inertia relative to that of one cluster for all: 0 is perfect, 1 explains nothing."""
    total = float(((rows - rows.mean(dim=0)) ** 2).sum())
    return clustering.inertia / total if total > 0 else 0.0


def _fill_empty(rows: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """Give each empty cluster the task that lies farthest from its own centre, out of a shared cluster."""
    count = torch.bincount(labels, minlength=clusters)
    for empty in (count == 0).nonzero().flatten().tolist():
        distance = ((rows - group_mean(rows, labels, clusters)[labels]) ** 2).sum(dim=1)
        shared = torch.bincount(labels, minlength=clusters)[labels] > 1
        labels = labels.clone()
        labels[int(torch.where(shared, distance, -1.0).argmax())] = empty
    return labels
