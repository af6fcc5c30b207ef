"""What a task scored: accuracy, area under the ROC curve, explained variance, or the F1 of spans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from coterie.runtime.tasks import TaskSpec

Array = npt.NDArray[np.float32]


def task_metrics(spec: TaskSpec, scores: Array, target: Array) -> dict[str, float]:
    """Score one task's answers.

    Args:
        spec: The task.
        scores: ``[Q, C]``; columns past the task's own width do not count. For a tagging the tag of each
            word, ``[Q, T]``.
        target: ``[Q, T]``; NaN is a missing label.

    Returns:
        Metrics by name; ``spec.metric`` is left out where it is not defined (no answers; one class only).
    """
    if len(scores) == 0:
        return {}
    if spec.kind == "tagging":
        return _tagging(spec, scores, target)
    scores = scores[:, : spec.width]
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
    # All columns at once: with a thousand tasks, a call for each would take longer than an epoch's training.
    values = np.where(known, target, 0.0).astype(np.float64)
    mean = values.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    total = (np.where(known, values - mean, 0.0) ** 2).sum(axis=0)
    missed = (np.where(known, values - scores, 0.0) ** 2).sum(axis=0)
    varies = total > 0
    if varies.any():
        result["r2"] = float(np.mean(1.0 - missed[varies] / total[varies]))
    return result


def _tagging(spec: TaskSpec, tags: Array, target: Array) -> dict[str, float]:
    tags = tags[:, : target.shape[1]]
    known = ~np.isnan(target)
    if not known.any():
        return {}
    result = {"accuracy": float((tags == target)[known].mean())}
    if not spec.spans:
        return result
    right = found = there = 0
    # A word without a label, and padding, is outside of every span.
    labels, outside = [*spec.labels, "O"], len(spec.labels)
    for row, mask in enumerate(known):
        guessed, real = (
            spans(labels, np.where(mask & (each[row] >= 0), each[row], outside)) for each in (tags, target)
        )
        right, found, there = right + len(guessed & real), found + len(guessed), there + len(real)
    return result | {
        "precision": right / max(found, 1),
        "recall": right / max(there, 1),
        "f1": 2 * right / max(found + there, 1),
    }


def spans(labels: Sequence[str], tags: Array) -> set[tuple[int, int, str]]:
    """Return the spans that tags ``[T]`` mark, as first word, end and type, counted as conlleval does.

    A span begins at B, and at an I that does not go on with a span of its type (CoNLL-2000, CoNLL-2003).
    """
    found = set()
    start, open_ = 0, ""
    for index, label in enumerate([*(labels[int(tag)] for tag in tags), "O"]):
        if open_ and label != open_:
            found.add((start, index, open_[2:]))
            open_ = ""
        if label[0] != "O" and not open_:
            start, open_ = index, f"I{label[1:]}"
    return found
