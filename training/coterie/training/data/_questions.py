"""From a table's rows to questions: which split a row is of, which task it asks, and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np

from coterie.runtime.tasks import TaskSpec
from coterie.training.data import _columns
from coterie.training.data._columns import Doubles, Objects
from coterie.training.data._config import SplitColumn, _Questions
from coterie.training.data._config_parts import EVERY
from coterie.training.data._dataset import SPLITS, Array, Floats, Ints
from coterie.training.data._problems import Problems, shown
from coterie.training.data._tables import Table
from coterie.training.data._targets import Cells, TargetReader, flat_tags, infer_kind, missing


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """What is asked, in no particular split yet.

    Attributes:
        tasks: What each task answers.
        row: The table's row of each question, ``[Q]``.
        task: ``[Q]``.
        target: ``[Q, T]``.
    """

    tasks: tuple[TaskSpec, ...]
    row: Ints
    task: Ints
    target: Floats


def split_codes(table: Table, column: SplitColumn, problems: Problems) -> Ints:
    """Return each row's split as an index into ``SPLITS``, -1 where it is left out, ``[n]``."""
    meaning = {name: code for code, split in enumerate(SPLITS) for name in getattr(column, split)}
    found = _columns.names(table.columns[column.column])
    codes = np.full(len(found), -1, dtype=np.int64)
    distinct, inverse = np.unique(np.array([name or "" for name in found], dtype=object), return_inverse=True)
    for number, name in enumerate(distinct):
        rows = np.flatnonzero(inverse == number)
        if name in meaning:
            codes[rows] = meaning[name]
        elif not _matches(name, (*column.unlabeled, *column.ignore)):
            close = get_close_matches(name, meaning, n=1)
            what = f"{name!r} is no split" if name else "has no split"
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(meaning)};"
            problems.add_each(
                rows,
                lambda row, what=what, hint=hint: (  # type: ignore[misc]
                    f"{table.where(row, column.column)}: {what}: {hint} "
                    "correct it, or name it in split.ignore"
                ),
            )
    return codes


def unlabeled_rows(table: Table, column: SplitColumn | None) -> Ints:
    """Return the rows whose texts may be learned from without a question, ``[n]``."""
    if column is None or not column.unlabeled:
        return np.zeros(0, dtype=np.int64)
    found = _columns.names(table.columns[column.column])
    splits = {name for split in SPLITS for name in getattr(column, split)}
    return np.flatnonzero([name not in splits and _matches(name or "", column.unlabeled) for name in found])


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def unanswered(
    table: Table, config: _Questions, tasks: Sequence[TaskSpec], rows: Ints, problems: Problems
) -> tuple[Ints, Ints]:
    """Return the row and the task of each question that some unlabeled rows ``[U]`` stand for, both ``[Q]``.

    A row is a question of the task that it names, or of every task, where each has a column of its own.
    """
    names = [task.name for task in tasks]
    if not names:  # something else is wrong, and noted
        return _empty(), _empty()
    if config.task is None:
        return np.repeat(rows, len(names)), np.tile(np.arange(len(names)), len(rows))
    found = _columns.names(table.columns[config.task])[rows]
    known = np.array([name in names for name in found], dtype=bool)
    if config.tasks is None and config.other_tasks == "error":
        problems.add_each(
            rows[~known],
            lambda row: (
                f"{table.where(row, config.task or '')}: an unlabeled row is of no task that has labels: "
                "correct it, remove the row, or set other_tasks: ignore"
            ),
        )
    number = np.array([names.index(name) for name in found[known]], dtype=np.int64)
    return rows[known], number


def declared_tasks(
    config: _Questions, known: Sequence[str], source: str, problems: Problems
) -> tuple[str, ...]:
    """Return the tasks to keep, noting those that configuration names and the data lacks."""
    wanted = config.tasks if config.tasks is not None else tuple(known)
    for option, names in (
        ("tasks", config.tasks or ()),
        ("labels", config.labels),
        ("task_kind", config.task_kind),
    ):
        for name in names:
            if name != EVERY and name not in known:
                close = get_close_matches(name, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else "remove it, or correct the data"
                problems.add(f"{source}: no row is of task {name!r}, which {option} names: {hint}")
    found = set(known)
    return tuple(name for name in wanted if name in found)


def ask(
    table: Table,
    config: _Questions,
    *,
    targets: Sequence[str],
    kept: Array,
    problems: Problems,
    task_names: tuple[str, ...] | None = None,
    target_names: tuple[str, ...] | None = None,
    words: Ints | None = None,
) -> Questions:
    """Return the questions of the kept rows.

    Args:
        table: The rows.
        config: What is asked, and of whom.
        targets: The target columns.
        kept: Which rows are of a split that is kept, ``[n]`` bool.
        problems: Where to note what is wrong.
        task_names: Names that the numbers in the task column stand for.
        target_names: Names that the numbers in the target column stand for.
        words: How many words each row's text has, ``[n]``, where texts are lists of words.
    """
    columns = {name: _columns.values(table.columns[name]) for name in targets}
    if config.task is None:
        groups = _wide(
            table, config, columns=columns, kept=kept, target_names=target_names, problems=problems
        )
    else:
        tasks = _named(table, config.task, task_names, kept, problems)
        groups = _long(
            table, config, columns=columns, tasks=tasks, target_names=target_names, problems=problems
        )
    shared = _shared(config, groups)
    reader = TargetReader(table, config.task_kind, config.labels, shared, problems, words=words)
    guesses = [infer_kind(cells.values) for cells in groups]
    if config.task is not None and "regression" in guesses:
        # One column means one thing, though a small task's few numbers may look like classes.
        guesses = ["regression" for _ in groups]
    answered = [(cells, *reader.read(cells, guess)) for cells, guess in zip(groups, guesses, strict=True)]
    specs = [spec for _, spec, _ in answered if spec is not None]
    if not answered:
        problems.add(f"{', '.join(table.files)}: no row is left for any task: check split and tasks")
    if len(specs) < len(answered) or not specs:
        return Questions(tasks=(), row=_empty(), task=_empty(), target=np.zeros((0, 1), dtype=np.float32))
    if 1 <= sum(spec.kind == "tagging" for spec in specs) < len(specs):
        kinds = ", ".join(f"{spec.name} ({spec.kind})" for spec in specs)
        problems.add(f"tagging and other tasks cannot be of one model: {kinds}: leave some of them out")
    width = max(target.shape[1] for _, _, target in answered)
    row = np.concatenate([cells.rows for cells in groups])
    task = np.repeat(np.arange(len(groups)), [len(cells.rows) for cells in groups])
    target = np.concatenate([_widened(part, width) for _, _, part in answered])
    order = np.lexsort((task, row))
    return Questions(tasks=tuple(specs), row=row[order], task=task[order], target=target[order])


def _empty() -> Ints:
    return np.zeros(0, dtype=np.int64)


def _widened(target: Floats, width: int) -> Floats:
    return np.pad(target, ((0, 0), (0, width - target.shape[1])), constant_values=np.nan)


def _named(
    table: Table, column: str, task_names: tuple[str, ...] | None, kept: Array, problems: Problems
) -> Objects:
    """Return each kept row's task, None for the other rows, ``[n]``."""
    found = _columns.names(table.columns[column])
    found[~kept] = None
    if task_names is not None:
        numbers, _ = _columns.numbers(table.columns[column])
        inside = kept & (np.mod(numbers, 1) == 0) & (numbers >= 0) & (numbers < len(task_names))
        outside = kept & ~inside
        problems.add_each(
            np.flatnonzero(outside),
            lambda row: (
                f"{table.where(row, column)}: {shown(found[row])} is out of range: "
                f"there are {len(task_names)} task names, counted from 0"
            ),
        )
        found[inside] = np.array(task_names, dtype=object)[numbers[inside].astype(np.int64)]
        found[outside] = None
        return found
    absent = kept & np.array([name is None for name in found], dtype=bool)
    problems.add_each(
        np.flatnonzero(absent),
        lambda row: f"{table.where(row, column)}: has no task: fill it in, or remove the row",
    )
    return found


def _long(
    table: Table,
    config: _Questions,
    *,
    columns: dict[str, Doubles | Objects],
    tasks: Objects,
    target_names: tuple[str, ...] | None,
    problems: Problems,
) -> list[Cells]:
    """Divide a long table's rows among the tasks that its task column names."""
    column = config.task or ""
    known, inverse = np.unique(np.array([name or "" for name in tasks], dtype=object), return_inverse=True)
    rows = {str(name): np.flatnonzero(inverse == number) for number, name in enumerate(known) if name}
    keep = declared_tasks(config, sorted(rows), ", ".join(table.files), problems)
    if config.other_tasks == "error":
        for name in sorted(set(rows) - set(keep)):
            close = get_close_matches(name, keep, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            problems.add_each(
                rows[name],
                lambda row, name=name, hint=hint: (  # type: ignore[misc]
                    f"{table.where(row, column)}: unknown task {name!r}: {hint}correct it, add it to tasks, "
                    "or set other_tasks: ignore"
                ),
            )
    return [
        Cells(
            name,
            rows[name],
            tuple(columns),
            tuple(values[rows[name]] for values in columns.values()),
            target_names,
        )
        for name in keep
    ]


def _wide(
    table: Table,
    config: _Questions,
    *,
    columns: dict[str, Doubles | Objects],
    kept: Array,
    target_names: tuple[str, ...] | None,
    problems: Problems,
) -> list[Cells]:
    """Make a task of each target column; its missing cells are questions that nobody asks."""
    groups = []
    for name in declared_tasks(config, list(columns), ", ".join(table.files), problems):
        values = columns[name]
        rows = np.flatnonzero(kept & ~missing(values))
        if len(rows):
            groups.append(Cells(name, rows, (name,), (values[rows],), target_names))
        else:
            problems.add(f"{', '.join(table.files)}: column {name!r} has no label at all: leave the task out")
    return groups


def _shared(config: _Questions, groups: Sequence[Cells]) -> tuple[str, ...] | None:
    if config.classes == "within_task":
        return None
    if groups and groups[0].names is not None:
        return groups[0].names
    seen: set[str] = set()
    numeric = True
    for values in (cells.values[0] for cells in groups):
        present = flat_tags(values[~missing(values)])
        present = present[~missing(present)]
        if present.dtype == object:
            numeric = False
            seen.update(present.tolist())
        else:
            seen.update(_columns.name_of(value) for value in np.unique(present) if float(value).is_integer())
    return tuple(sorted(seen, key=float) if numeric else sorted(seen))
