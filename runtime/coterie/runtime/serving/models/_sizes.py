"""How large the inputs of a question are, whatever they are."""

from __future__ import annotations

from typing import Any

import numpy as np

LONGEST_TEXT = 100_000
"""Characters of one text that a server takes unless it is told otherwise."""


def rows_of(values: Any) -> int:
    """Return how many rows there are, of whatever shape: the engine is who refuses a shape."""
    if isinstance(values, dict):
        return max(map(rows_of, values.values()))
    if isinstance(values, np.ndarray):
        return len(values) if values.ndim else 1
    return len(values)


def longest_text(values: Any) -> int:
    """Return the characters of the longest text, or list of words, among the rows; arrays have none."""
    if isinstance(values, dict):
        return max(map(longest_text, values.values()), default=0)
    if not isinstance(values, list):
        return 0
    return max(map(_length, values), default=0)


def _length(row: Any) -> int:
    if isinstance(row, str):
        return len(row)
    if isinstance(row, list):  # of words; anything else is not a text, and no text's length
        return sum(len(word) for word in row if isinstance(word, str))
    return max(map(_length, row.values()), default=0) if isinstance(row, dict) else 0
