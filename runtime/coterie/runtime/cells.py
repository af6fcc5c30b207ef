"""Cells of a CSV as long as a document, for whatever reads one: training data, or a question's inputs."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 1 << 26
"""Characters of a cell; Python's own limit is shorter than a long document."""


@contextmanager
def long_cells() -> Iterator[None]:
    """Let ``csv`` read cells of up to 64 Mi characters while the ``with`` block lasts.

    The limit belongs to the whole process, so it is put back.
    """
    previous = csv.field_size_limit(_LONGEST)
    try:
        yield
    finally:
        csv.field_size_limit(previous)
