"""What a task scored: accuracy, area under the ROC curve, or explained variance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import r2_score, roc_auc_score

from coterie.runtime.tasks import TaskSpec

Array = npt.NDArray[np.float32]

PRIMARY = {"classification": "accuracy", "multilabel": "roc_auc", "regression": "r2"}
"""The metric that is compared, by kind of task; higher is better for each."""


def task_metrics(spec: TaskSpec, scores: Array, target: Array) -> dict[str, float]:
    """Score one task's answers.

    Args:
        spec: The task.
        scores: ``[Q, C]``.
        target: ``[Q, T]``; NaN is a missing label.

    Returns:
        Metrics by name; the primary one is left out where it is not defined (no answers; one class only).
    """
    if len(scores) == 0:
        return {}
    if spec.kind == "classification":
        return _classification(scores, target[:, 0])
    if spec.kind == "multilabel":
        return _multilabel(scores, target[:, : spec.width])
    return _regression(scores, target[:, : spec.width])


def _classification(scores: Array, target: Array) -> dict[str, float]:
    known = ~np.isnan(target)
    if not known.any():
        return {}
    return {"accuracy": float((scores.argmax(1) == target)[known].mean())}


def _multilabel(scores: Array, target: Array) -> dict[str, float]:
    known = ~np.isnan(target)
    if not known.any():
        return {}
    result = {"accuracy": float(((scores > 0) == (target > 0.5))[known].mean())}
    areas = []
    for column in range(target.shape[1]):
        there = known[:, column]
        if len(np.unique(target[there, column])) == 2:
            areas.append(roc_auc_score(target[there, column], scores[there, column]))
    if areas:
        result["roc_auc"] = float(np.mean(areas))
    return result


def _regression(scores: Array, target: Array) -> dict[str, float]:
    known = ~np.isnan(target)
    if not known.any():
        return {}
    result = {"rmse": float(np.sqrt(((scores - target)[known] ** 2).mean()))}
    explained = []
    for column in range(target.shape[1]):
        there = known[:, column]
        if there.sum() >= 2 and np.ptp(target[there, column]) > 0:
            explained.append(r2_score(target[there, column], scores[there, column]))
    if explained:
        result["r2"] = float(np.mean(explained))
    return result
