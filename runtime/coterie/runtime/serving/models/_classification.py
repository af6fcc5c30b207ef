"""Triton's classification extension: the likeliest classes of an output, by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from coterie.runtime.engine import Prediction
from coterie.runtime.errors import InvalidInputError
from coterie.runtime.serving.models._tensors import Array


def classes_of(value: Any, of: str) -> int:
    """Return how many classes the parameter ``classification`` asks for; 0 where the output is asked whole.

    Raises:
        InvalidInputError: If it is no such number.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInputError(f"{of[:100]}: 'classification' is a number of classes, from 1 up")
    return value


def classify(prediction: Prediction, values: Array, count: int) -> Array:
    """Return the classes of the highest values, best first; of equal ones the first class is first.

    Args:
        prediction: Whose the values are.
        values: [B, C], or [B, L, C] for taggings.
        count: How many classes; as many as there are, if that is less.

    Returns:
        [B, k] or [B, L, k], BYTES: ``value:index:label``. Where a question's task has fewer than k classes,
        or a sentence fewer than L words, the rest is empty.
    """
    best = np.argsort(-values, axis=-1, kind="stable")
    texts = np.full((*values.shape[:-1], min(count, values.shape[-1])), b"", dtype=object)
    for index in range(len(prediction)):
        labels = prediction.specs[prediction.task[index]].labels
        if prediction.lengths is None:
            _fill(texts[index], values[index], best[index], labels)
            continue
        for word in range(prediction.lengths[index]):
            _fill(texts[index, word], values[index, word], best[index, word], labels)
    return texts


def _fill(texts: Array, values: Array, best: Array, labels: tuple[str, ...]) -> None:
    # Columns past a task's own classes are there for the wider tasks of the same answer.
    own = [index for index in best.tolist() if index < len(labels)]
    for place, index in enumerate(own[: len(texts)]):
        texts[place] = f"{values[index]:f}:{index}:{labels[index]}".encode()
