"""Numbers that float32 cannot tell apart: times in seconds of one day, prices of one cent's difference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BLURRED = (
    "its numbers differ by less than float32 can tell, compared with their size: "
    "subtract a number from all of them, such as their mean"
)

_LARGEST = float(np.finfo(np.float32).max)
_ROUNDING = 2.0**-24
_TOLERATED = 1e-3
"""Of their deviation, how much of numbers may be lost."""


def is_blurred(values: npt.NDArray[Any]) -> bool:
    """Return whether numbers ``[n]`` lose more than a thousandth of their deviation in float32.

    NaN, infinity and what is too large for float32 do not count.
    """
    if values.dtype == np.float32:  # whatever was lost was lost before
        return False
    known = values.astype(np.float64)
    known = known[np.abs(known) <= _LARGEST]
    if len(known) < 2 or known.min() == known.max():
        return False
    return bool(np.abs(known).max() * _ROUNDING > _TOLERATED * known.std())
