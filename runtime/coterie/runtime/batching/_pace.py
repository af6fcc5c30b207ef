"""How many rows a batch may have: learnt from what runs took."""

from __future__ import annotations

import math

_KEPT = 0.95
"""Share of what was known that stays when a run is added."""
_LEAST = 32
"""Rows that a batch may always have."""
_WORTH = 8
"""How many times what a run takes beside its rows they may take: more of them are hardly cheaper each, and
whoever comes meanwhile waits for all."""
_UNFELT = 0.008
"""Seconds that the rows of a run may take in any case."""
_SPREAD = 0.1
"""Of their mean, how far the sizes of runs must lie apart to tell what a run takes beside its rows."""


class Pace:
    """Knows that a run of n rows takes about a + b n seconds, and so how many rows fit a time.

    Args:
        target: Seconds that a run should take at most: what whoever comes meanwhile has to wait.
        most: Rows that a batch never exceeds.
    """

    def __init__(self, *, target: float, most: int) -> None:
        self._target = target
        self._most = most
        self._weight = self._rows = self._seconds = self._squares = self._products = 0.0
        self._worth = most

    def learn(self, rows: int, seconds: float) -> None:
        """Remember a run of one row or more; newer ones count more (least squares with forgetting)."""
        self._weight = _KEPT * self._weight + 1
        self._rows = _KEPT * self._rows + rows
        self._seconds = _KEPT * self._seconds + seconds
        self._squares = _KEPT * self._squares + rows * rows
        self._products = _KEPT * self._products + rows * seconds
        start, each = self.line()
        if start > 0 and self._varies():
            self._worth = round(max(_WORTH * start, _UNFELT) / each)

    def line(self) -> tuple[float, float]:
        """Return a and b; while all runs had the same size, all of their time is b's."""
        if not self._weight:
            return 0.0, 0.0
        rows, seconds = self._rows / self._weight, self._seconds / self._weight
        spread = self._squares / self._weight - rows * rows
        slope = (self._products / self._weight - rows * seconds) / spread if spread > 1e-9 else 0.0
        # Noise can tilt the line; a row never costs nothing, and a run never less than its rows.
        if slope <= 0 or seconds - slope * rows < 0:
            return 0.0, seconds / rows
        return seconds - slope * rows, slope

    def limit(self) -> int:
        """Return the rows that fit the target, and of these no more than are worth the wait."""
        start, each = self.line()
        if each <= 0:
            return min(self._most, _LEAST * 8)
        return max(_LEAST, min(self._most, self._worth, math.floor((self._target - start) / each)))

    def seconds(self, rows: int) -> float:
        """Return about how long so many rows take, in batches of the limit."""
        start, each = self.line()
        return start * math.ceil(rows / self.limit()) + each * rows

    def _varies(self) -> bool:
        mean = self._rows / self._weight
        return self._squares / self._weight - mean * mean > (_SPREAD * mean) ** 2
