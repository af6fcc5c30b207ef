"""Whether numbers are in order, asked of a few of them in a time that a single question does not feel.

A ufunc and a reduction of a handful of numbers take longer than the numbers: what they run has long left the
caches when a model's weights have gone through them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_FEW = 128

Array = npt.NDArray[Any]


def all_finite(values: Array) -> bool:
    """Return whether no number is infinite, and none is NaN."""
    if values.size <= _FEW:
        return all(map(math.isfinite, values.ravel().tolist()))
    return bool(np.isfinite(values).all())


def all_within(values: Array, low: float, high: float) -> bool:
    """Return whether every number is from ``low`` to ``high``; NaN is not."""
    if values.size <= _FEW:
        return all(low <= value <= high for value in values.ravel().tolist())
    return bool(values.min() >= low and values.max() <= high)
