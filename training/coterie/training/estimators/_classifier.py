"""Classification."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_array
from sklearn.utils.multiclass import check_classification_targets

from coterie.runtime.tasks import TaskSpec
from coterie.training.data._dataset import Array, Floats
from coterie.training.estimators._base import ClusteredMultiTask, missing
from coterie.training.estimators._tasks import Tasks


class ClusteredMultiTaskClassifier(ClassifierMixin, ClusteredMultiTask):  # type: ignore[misc] # no type hints
    """Classifies for many related tasks that share weights where it helps.

    Args:
        hidden_layer_sizes: Widths of the trunk, which all tasks share; a number is one layer.
        n_experts: Experts of which each task learns to mix some; 0 for none.
        n_clusters: Clusters of tasks that share a layer, at most one a task; 0 for none.
        density_penalty: The price of one more expert for a task.
        stages: A model of your own, as in a configuration (docs/training.md), in place of the four above.
        max_iter: Epochs.
        batch_size: Inputs in a batch.
        learning_rate: Of Adam.
        weight_decay: Of the weights.
        early_stopping: Whether to keep a part of each task from training and stop when its loss does not
            fall any more; otherwise the epoch of the lowest training loss is kept.
        validation_fraction: How much to keep.
        n_iter_no_change: Epochs without improvement to wait.
        overrides: Any other option of a training, such as ``trainer.schedule=cosine``.
        run_folder: Where to leave a run folder with a report; none is left when not given.
        verbose: Whether to print a line an epoch.
        random_state: Seed.

    Attributes:
        classes_: The classes, ``[C]``; a list of arrays where y was ``[n, T]``.
        tasks_: The tasks' names.
        n_features_in_: D.
        n_iter_: Epochs made.
        history_: A record an epoch.
        run_: The training: its model, plan and metrics; ``coterie.exporter.export_run`` makes a bundle of it.
    """

    score = ClusteredMultiTask.score  # scikit-learn's own knows of no tasks

    def __sklearn_tags__(self) -> Any:
        """Return what scikit-learn may expect."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags

    def predict_proba(self, X: Any, task: Any = None) -> Array | list[Array]:  # noqa: N803
        """Return the classes' probabilities, ``[n, C]``; a list of T such arrays where y was ``[n, T]``.

        Args:
            X: Features ``[n, D]``.
            task: The task of each row ``[n]``, or one for all.
        """
        scores, number = self._answers(X, task)
        if not self._tasks.wide:
            return np.asarray(softmax(scores[:, : len(self.classes_)], axis=1))
        return [
            np.asarray(softmax(scores[number == index, : len(classes)], axis=1))
            for index, classes in enumerate(self.classes_)
        ]

    def predict(self, X: Any, task: Any = None) -> Array:  # noqa: N803
        """Return the likeliest classes, ``[n]``, or ``[n, T]`` as y was.

        Args:
            X: Features ``[n, D]``.
            task: The task of each row ``[n]``, or one for all.
        """
        probabilities = self.predict_proba(X, task)
        if not isinstance(probabilities, list):
            found: Array = self.classes_[probabilities.argmax(axis=1)]
            return found
        columns = [
            classes[each.argmax(axis=1)] for classes, each in zip(self.classes_, probabilities, strict=True)
        ]
        return np.stack(columns, axis=1)

    def _targets(self, y: Any, tasks: Tasks) -> tuple[list[TaskSpec], Floats]:
        # dtype None keeps strings; a single column is checked like a matrix of one.
        found = check_array(y, dtype=None, ensure_2d=False, input_name="y", ensure_all_finite=_finite(tasks))
        values = found.reshape(len(found), -1) if tasks.wide else found.reshape(-1, 1)
        classes, codes = [], np.full(values.shape, np.nan, dtype=np.float32)
        for column in range(values.shape[1]):
            known = ~missing(values[:, column])
            cells = values[known, column]
            if cells.dtype == object:
                cells = cells.astype(type(cells[0])) if len(cells) else cells.astype(str)
            check_classification_targets(cells)
            distinct, inverse = np.unique(cells, return_inverse=True)
            if len(distinct) < 2:
                raise ValueError(
                    f"y: {'column ' + str(column) if tasks.wide else 'it'} has {len(distinct)} class: "
                    "a classifier needs at least two"
                )
            classes.append(distinct)
            codes[known, column] = inverse
        self.classes_ = classes if tasks.wide else classes[0]
        specs = [
            TaskSpec(
                name=str(name),
                kind="classification",
                labels=tuple(map(str, classes[index if tasks.wide else 0].tolist())),
            )
            for index, name in enumerate(tasks.names)
        ]
        return specs, codes.reshape(-1)

    def _score(self, truth: Array, predicted: Array, weight: Array | None) -> float:
        return float(accuracy_score(truth, predicted, sample_weight=weight))


def _finite(tasks: Tasks) -> bool | str:
    return "allow-nan" if tasks.wide else True
