"""A list of what is wrong with a data set, so that all of it is reported at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from coterie.runtime.errors import DataError

_KEPT = 5000
_KEPT_OF_A_SORT = 1000
_UNSEEN = 100


class Problems:
    """Collects mistakes; up to a few thousand are kept word for word, the rest are counted."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, line: str) -> None:
        """Note one mistake: what is wrong, where, and what to do."""
        self._count += 1
        if len(self._lines) < _KEPT:
            self._lines.append(line)

    def add_each(self, rows: Iterable[int], line: Callable[[int], str]) -> None:
        """Note one mistake for each row; ``line`` says it."""
        # One sort of mistake in every row must not keep the others off the list.
        for number, row in enumerate(rows):
            if number < _KEPT_OF_A_SORT and len(self._lines) < _KEPT:
                self._lines.append(line(int(row)))
            self._count += 1

    def check(self) -> None:
        """Raise what was collected.

        Raises:
            DataError: If anything was.
        """
        if not self._count:
            return
        noun = "mistake" if self._count == 1 else "mistakes"
        kept = f" ({len(self._lines)} of them are kept)" if self._count > len(self._lines) else ""
        raise DataError(f"the data set has {self._count} {noun}{kept}:", self._lines)


def shown(value: object, limit: int = _UNSEEN) -> str:
    """Return a value as a person would recognise it, cut short."""
    text = repr(str(value) if isinstance(value, Path) else value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
