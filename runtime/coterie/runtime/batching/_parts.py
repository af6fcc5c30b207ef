"""A large request as several that are run one after the other, and their answers as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coterie.runtime.engine import Prediction
from coterie.runtime.engine._asked import Asked
from coterie.runtime.engine._prediction import Timing

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Parts:
    """A request in parts.

    Attributes:
        asked: Each part's questions.
        order: [B], which question of the request each one is, one part's after the other's.
    """

    asked: Sequence[Asked]
    order: Indices

    def join(self, answers: Sequence[Prediction]) -> Prediction:
        """Return the answers to the parts as the request's; shorter texts' words are padded with 0."""
        first, place = answers[0], np.argsort(self.order)
        probabilities = None
        if first.probabilities is not None:
            shares = [each.probabilities for each in answers if each.probabilities is not None]
            probabilities = _joined(shares)[place]
        lengths = None
        if first.lengths is not None:
            lengths = np.concatenate([each.lengths for each in answers if each.lengths is not None])[place]
        task = np.concatenate([each.task for each in answers])[place]
        scores = _joined([each.scores for each in answers])[place]
        return Prediction(first.specs, task, scores, probabilities, lengths, _together(answers))


_MANY = 64
"""Parts of one request; of a larger one they are larger."""


def divide(asked: Asked, most: int) -> Parts | None:
    """Divide questions into parts of about ``most``; None where there are no more, or all about one input.

    All tasks' questions about an input stay together, where one part has room for them.
    """
    if len(asked) <= most or asked.distinct == 1:
        return None
    order, most = np.argsort(asked.row, kind="stable"), max(most, -(-len(asked) // _MANY))
    parts = []
    for first in range(0, len(order), most):
        chosen = order[first : first + most]
        inputs, row = np.unique(asked.row[chosen], return_inverse=True)
        tensors = {name: tensor[inputs] for name, tensor in asked.inputs.items()}
        parts.append(Asked(tensors, row.astype(np.int64).reshape(-1), asked.task[chosen], asked.spec, inputs))
    return Parts(parts, order)


def _joined(arrays: Sequence[Floats]) -> Floats:
    longest = max(array.shape[1] for array in arrays)
    return np.concatenate(
        [
            np.pad(array, [(0, 0), (0, longest - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])
            for array in arrays
        ]
    )


def _together(answers: Sequence[Prediction]) -> Timing | None:
    """Return the time of all runs, and the size of the largest."""
    times = [each.timing for each in answers if each.timing is not None]
    if not times:
        return None
    return Timing(
        min(each.arrived for each in times),
        min(each.started for each in times),
        sum(each.seconds for each in times),
        max(each.rows for each in times),
    )
