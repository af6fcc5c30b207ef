"""The learned plans: which tasks share, and whether other seeds say the same."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import adjusted_rand_score

Plan = Sequence[dict[str, Any]]
"""The stages of a record's plan that hold several blocks."""


def between_seeds(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """Return for each stage how alike the plans of several seeds are.

    Clusters are compared by the adjusted Rand index, 1 for the same grouping and 0 for chance. Gated layers
    are compared by how alike two tasks' mixtures are (cosine), for every pair of tasks, correlated between
    seeds: experts have no order that two seeds could have in common.
    """
    found = []
    for stages in zip(*plans, strict=True):
        first = stages[0]
        if first["kind"] not in ("cluster", "gated"):
            continue
        row = {
            "name": first["name"],
            "kind": first["kind"],
            "trained": first["trained"],
            "kept": [stage["kept"] for stage in stages],
            "blocks_a_task": round(float(np.mean([len(used) for s in stages for used in s["uses"]])), 2),
        }
        pairs = list(itertools.combinations(stages, 2))
        if first["kind"] == "cluster":
            row["ari"] = [
                round(float(adjusted_rand_score(_labels(one), _labels(other))), 3) for one, other in pairs
            ]
        else:
            row["correlation"] = [_correlation(affinity(one), affinity(other)) for one, other in pairs]
        found.append(row)
    return found


def groups(plan: Plan, tasks: Sequence[str]) -> dict[str, list[list[str]]]:
    """Return for each cluster layer the tasks that share a centroid.

    For a gated layer each task stands with the one whose mixture is most like its own.
    """
    found = {}
    for stage in plan:
        if stage["kind"] == "cluster":
            labels = np.array(_labels(stage))
            found[stage["name"]] = [
                [tasks[t] for t in np.flatnonzero(labels == label)] for label in np.unique(labels)
            ]
        elif stage["kind"] == "gated":
            alike = affinity(stage) - 2 * np.eye(len(tasks))
            found[stage["name"]] = [[task, tasks[int(alike[t].argmax())]] for t, task in enumerate(tasks)]
    return found


def affinity(stage: dict[str, Any]) -> npt.NDArray[np.float64]:
    """Return how alike the mixtures of every two tasks are, ``[N, N]``, the cosine of their rows."""
    matrix = np.zeros((len(stage["uses"]), stage["kept"]))
    weights = stage.get("weights") or [[1.0] * len(used) for used in stage["uses"]]
    for task, (used, weight) in enumerate(zip(stage["uses"], weights, strict=True)):
        matrix[task, used] = weight
    rows = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    return np.asarray(rows @ rows.T)


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float | None:
    upper = np.triu_indices(len(one), 1)
    if one[upper].std() < 1e-9 or other[upper].std() < 1e-9:
        return None
    return round(float(np.corrcoef(one[upper], other[upper])[0, 1]), 3)


def _labels(stage: dict[str, Any]) -> list[int]:
    return [used[0] for used in stage["uses"]]
