"""What the cells of the target columns mean, for each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial

import numpy as np
from pydantic import ValidationError

from coterie.runtime.tasks import TaskKind, TaskSpec
from coterie.training.data._blurred import BLURRED, is_blurred
from coterie.training.data._columns import Doubles, Objects, name_of
from coterie.training.data._config_parts import EVERY, Kinds, Labels
from coterie.training.data._dataset import Array, Floats, Ints
from coterie.training.data._problems import Problems, shown
from coterie.training.data._tables import Table

_FEW = 20
"""Whole numbers of at most so many distinct values are taken for classes."""
_LARGEST = float(np.finfo(np.float32).max)
_MOSTLY = 0.8
"""Share of numbers among cells from which on the others are mistakes, rather than names."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The target cells of one task.

    Attributes:
        name: The task's name.
        rows: The table's rows they are of, ``[q]``.
        columns: The target columns' names.
        values: One array of cells ``[q]`` for each target column.
        names: Class names that the numbers in a single column stand for, where the data has any.
    """

    name: str
    rows: Ints
    columns: tuple[str, ...]
    values: tuple[Doubles | Objects, ...]
    names: tuple[str, ...] | None = None


def missing(values: Doubles | Objects) -> Array:
    """Return which cells are missing, ``[q]``."""
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values.astype(np.float64))


def infer_kind(columns: Sequence[Doubles | Objects]) -> TaskKind:
    """Return what the values of one or several target columns look like."""
    if len(columns) == 1:
        values = columns[0]
        if values.dtype == object:
            if any(isinstance(value, list) for value in values):
                return "tagging"
            return "regression" if _are_numbers_but_some(values) else "classification"
        distinct = np.unique(values[~missing(values)].astype(np.float64))
        whole = bool(np.all(np.mod(distinct, 1) == 0)) if np.all(np.isfinite(distinct)) else False
        return "classification" if whole and len(distinct) <= _FEW else "regression"
    for values in columns:
        if (
            values.dtype == object
            or not np.isin(values[~missing(values)].astype(np.float64), (0.0, 1.0)).all()
        ):
            return "regression"
    return "multilabel"


def _are_numbers_but_some(values: Doubles | Objects) -> bool:
    """Return whether names are numbers, of more values than there are classes, but for a few mistakes."""
    numbers, wrong = _as_numbers(values)
    known = numbers[~np.isnan(numbers)]
    return len(known) > _MOSTLY * (len(known) + wrong.sum()) and len(np.unique(known)) > _FEW


def flat_tags(values: Doubles | Objects) -> Doubles | Objects:
    """Return the tags of lists of tags, one after the other, None where missing; other cells as they are."""
    if values.dtype != object or not any(isinstance(value, list) for value in values):
        return values
    tags = [None if tag is None or not str(tag).strip() else str(tag) for value in values for tag in value]
    return np.fromiter(tags, dtype=object, count=len(tags))


class TargetReader:
    """Reads the target cells of every task, noting what is wrong with them.

    Args:
        table: Where the cells stand, for the messages.
        kinds: Declared kinds by task.
        labels: Declared labels by task.
        shared: Class names seen in any task, where undeclared classes are shared.
        words: How many words each row's text has, ``[n]``, where texts are lists of words.
    """

    def __init__(
        self,
        table: Table,
        kinds: Kinds,
        labels: Labels,
        shared: tuple[str, ...] | None,
        problems: Problems,
        *,
        words: Ints | None = None,
    ) -> None:
        self._table = table
        self._kinds = kinds
        self._labels = labels
        self._shared = shared
        self._problems = problems
        self._words = words

    def kind(self, cells: Cells, guess: TaskKind) -> TaskKind:
        """Return a task's kind: as declared, as its labels say, or as guessed."""
        named = cells.names is not None or len(self._declared(cells.name) or ()) > 1
        if len(cells.columns) == 1 and named and guess != "tagging":
            guess = "classification"
        return self._kinds.get(cells.name) or self._kinds.get(EVERY) or guess

    def read(self, cells: Cells, guess: TaskKind) -> tuple[TaskSpec | None, Floats]:
        """Return the task and its targets, ``[q, T]``; None when its labels make no task."""
        kind = self.kind(cells, guess)
        if kind == "classification":
            labels, target = self._classes(cells)
        elif kind == "tagging":
            labels, target = self._tags(cells)
        else:
            labels, target = self._numbers(cells, kind)
        try:
            return TaskSpec(name=cells.name, kind=kind, labels=labels), target
        except ValidationError as error:
            if kind in ("classification", "tagging") and len(labels) < 2:
                self._problems.add(
                    f"task {cells.name!r}: all its rows have the same class ({', '.join(labels) or 'none'}): "
                    "declare its labels, or leave the task out"
                )
            else:
                self._problems.add(
                    f"task {cells.name!r}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
                )
            return None, target

    def _declared(self, name: str) -> tuple[str, ...] | None:
        return self._labels.get(name, self._labels.get(EVERY))

    def _note(self, cells: Cells, column: str, wrong: Array, values: Doubles | Objects, what: str) -> None:
        rows, cell = cells.rows[wrong], values[wrong]
        at = dict(zip(rows.tolist(), cell.tolist(), strict=True))

        def line(row: int) -> str:
            value = at[row]
            value = name_of(value) if isinstance(value, float) and np.isfinite(value) else value
            return f"{self._table.where(row, column)}: {shown(value)} {what}"

        self._problems.add_each(rows, line)

    def _classes(self, cells: Cells) -> tuple[tuple[str, ...], Floats]:
        target = np.full((len(cells.rows), 1), np.nan, dtype=np.float32)
        declared = self._declared(cells.name)
        if len(cells.columns) > 1:
            self._problems.add(
                f"task {cells.name!r}: a classification has one target column, not {len(cells.columns)}: "
                "set task_kind to multilabel or regression"
            )
            return declared or ("0", "1"), target
        values, column = cells.values[0], cells.columns[0]
        absent = missing(values)
        self._problems.add_each(
            cells.rows[absent],
            lambda row: f"{self._table.where(row, column)}: has no label: fill it in, or remove the row",
        )
        labels, target[:, 0] = self._numbered(cells)
        return labels, target

    def _tags(self, cells: Cells) -> tuple[tuple[str, ...], Floats]:
        """Return the tags' names, and the class of each word of each text, ``[q, T]``."""
        empty = np.full((len(cells.rows), 1), np.nan, dtype=np.float32)
        column, values = cells.columns[0], cells.values[0]
        listed = np.array([isinstance(value, list) for value in values], dtype=bool)
        if self._words is None or len(cells.columns) > 1 or not listed.all():
            self._problems.add(
                f"task {cells.name!r}: a tagging has texts that are lists of words, and one target column, "
                "of a list of tags for each: set text and target to such columns (Parquet or JSON lines)"
            )
            return self._declared(cells.name) or ("0", "1"), empty
        count = np.array([len(tags) for tags in values], dtype=np.int64)
        wanted = self._words[cells.rows]
        of = dict(zip(cells.rows.tolist(), zip(count, wanted, strict=True), strict=True))
        self._problems.add_each(
            cells.rows[count != wanted],
            lambda row: (
                f"{self._table.where(row, column)}: has {of[row][0]} tags for {of[row][1]} words: "
                "give one for each"
            ),
        )
        flat = Cells(cells.name, np.repeat(cells.rows, count), (column,), (flat_tags(values),))
        labels, classes = self._numbered(flat)
        target = np.full((len(count), max(1, int(count.max(initial=1)))), np.nan, dtype=np.float32)
        target[np.arange(target.shape[1]) < count[:, None]] = classes
        unknown = np.isnan(target).all(axis=1) & np.array([not any(tags) for tags in values], dtype=bool)
        self._problems.add_each(
            cells.rows[unknown],
            lambda row: f"{self._table.where(row, column)}: has no tag: fill one in, or leave the cell empty",
        )
        return labels, target

    def _numbered(self, cells: Cells) -> tuple[tuple[str, ...], Floats]:
        """Return a column's class names, and each cell's class ``[q]``; NaN where it has none."""
        values, column = cells.values[0], cells.columns[0]
        absent = missing(values)
        target = np.full(len(values), np.nan, dtype=np.float32)
        found = values[~absent]
        distinct, inverse = np.unique(found, return_inverse=True)
        labels, classes = self._match(cells, distinct, self._declared(cells.name))
        for number in np.flatnonzero(classes == _FRACTION):
            wrong = np.flatnonzero(~absent)[inverse == number]
            self._note(cells, column, wrong, values, "is not a class: classes are names or whole numbers")
        for number in np.flatnonzero(classes == _UNKNOWN):
            wrong = np.flatnonzero(~absent)[inverse == number]
            self._note(cells, column, wrong, values, self._advice(distinct[number], labels))
        target[~absent] = np.where(classes < 0, np.nan, classes)[inverse]
        return labels, target

    @staticmethod
    def _advice(value: object, labels: tuple[str, ...]) -> str:
        if isinstance(value, float) and not all(map(_whole, labels)):
            return (
                f"is out of range: the labels count from 0 to {len(labels) - 1} "
                "(set labels, or correct the cell)"
            )
        close = get_close_matches(str(value), labels, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        listed = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
        return f"is not among the labels ({listed}): {hint}correct the cell, or add it to labels"

    def _match(
        self, cells: Cells, distinct: Array, declared: tuple[str, ...] | None
    ) -> tuple[tuple[str, ...], Ints]:
        """Return the class names, and each distinct value's class (negative: it has none)."""
        numeric = distinct.dtype != object
        fractions = np.mod(distinct, 1) != 0 if numeric else np.zeros(len(distinct), dtype=bool)
        index = numeric and declared is not None and not all(map(_whole, declared))
        spelt = [name_of(value) if numeric and np.isfinite(value) else str(value) for value in distinct]
        if cells.names is not None and numeric:
            known = [
                not fraction and 0 <= value < len(cells.names)
                for value, fraction in zip(distinct, fractions, strict=True)
            ]
            spelt = [
                cells.names[int(v)] if ok else s for v, ok, s in zip(distinct, known, spelt, strict=True)
            ]
            if not all(known) and declared is None:
                declared = cells.names
            index = False
        if declared is not None:
            labels = declared
        elif self._shared is not None:
            labels = self._shared
        else:
            labels = tuple(name for name, fraction in zip(spelt, fractions, strict=True) if not fraction)
        order = {str(number) if index else label: number for number, label in enumerate(labels)}
        classes = np.array([order.get(name, _UNKNOWN) for name in spelt], dtype=np.int64)
        classes[fractions] = _FRACTION
        return labels, classes

    def _numbers(self, cells: Cells, kind: TaskKind) -> tuple[tuple[str, ...], Floats]:
        labels = self._declared(cells.name) or cells.columns
        if len(labels) != len(cells.columns):
            self._problems.add(
                f"task {cells.name!r}: {len(labels)} labels for {len(cells.columns)} target columns: "
                "name each column once"
            )
            labels = cells.columns
        target = np.full((len(cells.rows), len(cells.columns)), np.nan, dtype=np.float32)
        absent = np.ones(len(cells.rows), dtype=bool)
        declared = cells.name in self._kinds or EVERY in self._kinds
        hint = "" if declared else "; where numbers are names of classes, set task_kind: classification"
        for number, (column, values) in enumerate(zip(cells.columns, cells.values, strict=True)):
            numbers, wrong = _as_numbers(values)
            note = partial(self._note, cells, column)
            note(
                wrong,
                values,
                "is not a number: correct the cell, or leave it empty where the label is missing" + hint,
            )
            note(
                np.isinf(numbers),
                values,
                "is infinite: correct the cell, or leave it empty where the label is missing",
            )
            note(
                np.isfinite(numbers) & (np.abs(numbers) > _LARGEST),
                values,
                "is too large for float32: give the column in another unit",
            )
            if kind == "multilabel":
                beyond = np.isfinite(numbers) & ~np.isin(numbers, (0.0, 1.0))
                note(beyond, values, "is out of range: a label of a multilabel task is 0, 1 or missing")
            if kind == "regression" and is_blurred(numbers):
                self._problems.add(f"task {cells.name!r}, column {column!r}: {BLURRED}")
            with np.errstate(over="ignore"):  # noted just above
                target[:, number] = numbers
            absent &= np.isnan(numbers) & ~wrong
        listed = ", ".join(cells.columns)
        self._problems.add_each(
            cells.rows[absent],
            lambda row: f"{self._table.where(row, listed)}: has no label: fill one in, or remove the row",
        )
        return tuple(labels), target


_UNKNOWN = -1
_FRACTION = -2


def _whole(label: str) -> bool:
    return label.lstrip("-").isdecimal()


def _as_numbers(values: Doubles | Objects) -> tuple[Doubles, Array]:
    if values.dtype != object:
        return values.astype(np.float64), np.zeros(len(values), dtype=bool)
    numbers = np.full(len(values), np.nan)
    wrong = np.zeros(len(values), dtype=bool)
    for index, value in enumerate(values):
        try:
            numbers[index] = np.nan if value is None else float(value)
        except ValueError:
            wrong[index] = True
    return numbers, wrong
