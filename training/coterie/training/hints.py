"""What somebody should be told of a training that has ended and learned nothing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coterie.runtime.tasks import TaskSpec
from coterie.training.data import Dataset, Split

_HARDLY = 0.02
"""Of accuracy, r2 or the area under the curve: less above what is known without any input is nothing."""


def hint_of(dataset: Dataset, metrics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str | None:
    """Return what to try where the tasks' mean metric on dev is hardly better than one answer for all inputs.

    Args:
        dataset: What was learned from.
        metrics: Split to task to metric to value.
    """
    found = [
        metrics["dev"][spec.name][spec.metric] - _known(spec, number, dataset.splits["dev"])
        for number, spec in enumerate(dataset.tasks)
        if spec.kind != "tagging" and spec.metric in metrics["dev"].get(spec.name, {})
    ]
    if not found or sum(found) / len(found) >= _HARDLY:
        return None
    return (
        "on dev the tasks are hardly answered better than with the commonest answer for every input: with "
        "few rows train for more epochs (trainer.epochs), or with another learning rate (trainer.lr)"
    )


def _known(spec: TaskSpec, number: int, split: Split) -> float:
    """Return the metric of one answer for all inputs."""
    if spec.kind == "regression":
        return 0.0
    if spec.kind == "multilabel":
        return 0.5
    target = split.target[split.task == number, 0]
    _, counts = np.unique(target[~np.isnan(target)], return_counts=True)
    return float(counts.max() / counts.sum())
