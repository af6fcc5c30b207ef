"""Regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import check_array

from coterie.runtime.tasks import TaskSpec
from coterie.training.data._dataset import Array, Floats
from coterie.training.estimators._base import ClusteredMultiTask
from coterie.training.estimators._tasks import Tasks


class ClusteredMultiTaskRegressor(RegressorMixin, ClusteredMultiTask):  # type: ignore[misc] # no type hints
    """Predicts a number for many related tasks that share weights where it helps.

    Parameters and attributes are those of ``ClusteredMultiTaskClassifier``, without classes.
    """

    score = ClusteredMultiTask.score  # scikit-learn's own knows of no tasks

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn may expect."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def predict(self, X: Any, task: Any = None) -> Array:  # noqa: N803
        """Return the numbers, ``[n]``, or ``[n, T]`` as y was.

        Args:
            X: Features ``[n, D]``.
            task: The task of each row ``[n]``, or one for all.
        """
        scores, _ = self._answers(X, task)
        numbers = scores[:, 0].astype(np.float64)
        return numbers.reshape(-1, len(self._tasks.names)) if self._tasks.wide else numbers

    def _targets(self, y: Any, tasks: Tasks) -> tuple[list[TaskSpec], Floats]:
        finite = "allow-nan" if tasks.wide else True
        found = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y", ensure_all_finite=finite)
        specs = [TaskSpec(name=str(name), kind="regression", labels=("value",)) for name in tasks.names]
        return specs, found.reshape(-1).astype(np.float32)

    def _score(self, truth: Array, predicted: Array, weight: Array | None) -> float:
        return float(r2_score(truth, predicted, sample_weight=weight))
