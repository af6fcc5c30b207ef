"""Reading tables: Parquet, CSV, JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

import numpy as np

from coterie.training.data import _columns
from coterie.training.data._assemble import Pool, assemble, merge
from coterie.training.data._blurred import BLURRED, is_blurred
from coterie.training.data._config import TableConfig
from coterie.training.data._dataset import SPLITS, Array, Dataset, Floats, Ints
from coterie.training.data._problems import Problems, shown
from coterie.training.data._questions import ask, split_codes, unanswered, unlabeled_rows
from coterie.training.data._tables import Table, concatenate, read_table


class _Layout:
    """Which columns of a file are needed; the patterns are resolved on the first file."""

    def __init__(self, config: TableConfig, problems: Problems) -> None:
        self._config = config
        self._problems = problems
        self.targets: list[str] = []
        self.features: dict[str, list[str]] = {}
        self.complete = True
        self._plain = [
            (option, name)
            for option, name in (
                ("task", config.task),
                ("text", text_column(config)),
                ("weight", config.weight),
                ("split.column", config.split.column if config.split else None),
            )
            if name is not None
        ]

    def columns_of(self, file: str, names: Sequence[str]) -> list[str]:
        """Return the needed columns among a file's, noting those it lacks."""
        taken = [name for _, name in self._plain]
        if not self.targets:
            self.targets = self._resolve(file, "target", self._config.target, names, taken)
        for name, one in self._config.named().items():
            if one.features is not None and not self.features.get(name):
                option = "features" if self._config.inputs is None else f"inputs.{name}.features"
                self.features[name] = self._resolve(
                    file, option, one.features, names, [*taken, *self.targets]
                )
        features = [column for columns in self.features.values() for column in columns]
        needed = dict.fromkeys([*taken, *self.targets, *features])
        lacking = dict.fromkeys(features, "features") | dict.fromkeys(self.targets, "target")
        lacking |= {name: option for option, name in self._plain}
        for name in needed:
            if name not in names:
                self._missing(file, lacking[name], name, names)
        return [name for name in needed if name in names]

    def _resolve(
        self, file: str, option: str, wanted: Sequence[str], names: Sequence[str], taken: Sequence[str]
    ) -> list[str]:
        found: dict[str, None] = {}
        for pattern in wanted:
            if pattern in names:
                found[pattern] = None
                continue
            matches = [name for name in names if fnmatchcase(name, pattern) and name not in taken]
            if not matches:
                self._missing(file, option, pattern, names)
            found.update(dict.fromkeys(matches))
        return list(found)

    def _missing(self, file: str, option: str, name: str, names: Sequence[str]) -> None:
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"the columns are {', '.join(names[:20])}"
        self._problems.add(f"{file}: has no column {name!r}, which {option} names: {hint}")
        self.complete = False


def text_column(config: TableConfig) -> str | None:
    """Return the column of the texts, where the table has any."""
    return next((one.text for one in config.named().values() if one.text is not None), None)


def load_table(config: TableConfig) -> Dataset:
    """Read a table.

    Raises:
        DataError: If anything in it is wrong; every mistake is listed.
    """
    problems = Problems()
    layout = _Layout(config, problems)
    tables, from_file = [], []
    for split, path in config.path.items():
        table = read_table(
            path,
            config.format,
            config.delimiter,
            lambda names, file=path.name: layout.columns_of(file, names),  # type: ignore[misc]
            problems,
        )
        if table is not None:
            tables.append(table)
            from_file.append(
                np.full(len(table), SPLITS.index(split) if split != "all" else 0, dtype=np.int64)
            )
    if len(tables) < len(config.path) or not layout.complete:
        problems.check()
    table = concatenate(tables)
    codes = split_codes(table, config.split, problems) if config.split else np.concatenate(from_file)
    column = text_column(config)
    texts = None if column is None else _columns.words(table.columns[column])
    if texts is not None and config.empty_texts == "drop":
        codes[_empty(texts)] = -1
    kept = codes >= 0
    words = None
    if texts is not None and any(isinstance(text, tuple) for text in texts):
        words = np.array([len(text or ()) for text in texts], dtype=np.int64)
    questions = ask(table, config, targets=layout.targets, kept=kept, problems=problems, words=words)
    # A row that nobody asks about, because its task is left out, may hold anything.
    asked = np.zeros(len(table), dtype=bool)
    asked[questions.row] = True
    asked = asked if len(questions.row) else kept
    weight = read_weights(table, config.weight, asked, problems)
    unlabeled = unlabeled_rows(table, config.split)
    if texts is not None:
        unlabeled = unlabeled[~_empty(texts[unlabeled])]
    bare, bare_task = unanswered(table, config, questions.tasks, unlabeled, problems)
    asked[bare] = True
    rows = np.flatnonzero(asked)
    pools: dict[str, Pool] = {}
    for name, one in config.named().items():
        if one.text is not None:
            pools[name] = _read_texts(table, config, one.text, rows, problems)
        else:
            pools[name] = _read_features(table, layout.features[name], rows, problems)
    problems.check()
    place = np.full(len(table), -1, dtype=np.int64)
    distinct, first, place[rows] = merge(pools)
    return assemble(
        distinct,
        questions,
        config,
        inputs=place[questions.row],
        code=codes[questions.row],
        weight=None if weight is None else weight[questions.row],
        tokens=config.tokens,
        where=lambda item: table.where(int(rows[first[item]]), column or ""),
        problems=problems,
        unlabeled=() if texts is None else list(texts[unlabeled]),
        others=(place[bare], bare_task),
    )


def read_weights(table: Table, column: str | None, kept: Array, problems: Problems) -> Floats | None:
    """Return each row's weight, ``[n]``."""
    if column is None:
        return None
    weight, wrong = _columns.numbers(table.columns[column])
    bad = kept & ~(np.isfinite(weight) & (weight >= 0))
    problems.add_each(
        np.flatnonzero(bad),
        lambda row: (
            f"{table.where(row, column)}: {shown(wrong[row] or float(weight[row]))} is not a weight: "
            "weights are numbers of at least 0"
        ),
    )
    return weight.astype(np.float32)


def _read_texts(table: Table, config: TableConfig, column: str, rows: Ints, problems: Problems) -> Pool:
    """Return the texts of some rows, or their lists of words."""
    found = _columns.words(table.columns[column])[rows]
    if _columns.holds_lists(table.columns[column]):
        _note_words(table, config, column, rows=rows, found=found, problems=problems)
    problems.add_each(
        rows[_empty(found)],
        lambda row: (
            f"{table.where(row, column)}: the text is empty: fill it in, remove the row, "
            "or set empty_texts: drop"
        ),
    )
    texts: list[str] = found.tolist()
    return texts


def _read_features(table: Table, features: Sequence[str], rows: Ints, problems: Problems) -> Array:
    """Return the features of some rows, ``[n, D]`` float32."""
    if len(features) == 1 and _columns.is_list(table.columns[features[0]]):
        return read_vectors(table, features[0], rows, problems)
    values = np.empty((len(rows), len(features)), dtype=np.float32)
    for index, name in enumerate(features):
        numbers, wrong = _columns.numbers(table.columns[name])
        numbers, wrong = numbers[rows], wrong[rows]
        note_features(table, name, rows, numbers=numbers, wrong=wrong, problems=problems)
        if is_blurred(numbers):
            problems.add(f"{', '.join(table.files)}, column {name!r}: {BLURRED}")
        with np.errstate(over="ignore"):  # noted just above
            values[:, index] = numbers
    # Adding 0 turns -0.0 into 0.0: equal rows are then equal byte by byte.
    return values + np.float32(0)


def _empty(texts: _columns.Objects) -> Array:
    return np.array([not text or (isinstance(text, str) and not text.strip()) for text in texts], dtype=bool)


def _note_words(
    table: Table,
    config: TableConfig,
    column: str,
    *,
    rows: Ints,
    found: _columns.Objects,
    problems: Problems,
) -> None:
    """Note what is wrong with lists of words, ``[len(rows)]``."""
    most = config.tokens.max_length
    if config.tokens.tokenizer != "whitespace":
        problems.add(
            f"tokens.tokenizer: is {config.tokens.tokenizer}, but column {column!r} holds lists of words, "
            "which are not divided any more: leave it out"
        )
    wrong = np.array(
        [any(not isinstance(word, str) or not word.strip() for word in words or ()) for words in found],
        dtype=bool,
    )
    problems.add_each(
        rows[wrong],
        lambda row: f"{table.where(row, column)}: has a word that is missing or empty: correct or remove it",
    )
    long = np.array([len(words or ()) > most for words in found], dtype=bool)
    problems.add_each(
        rows[long],
        lambda row: (
            f"{table.where(row, column)}: has more than {most} words: divide the row, or raise "
            "tokens.max_length"
        ),
    )


def note_features(
    table: Table, name: str, rows: Ints, *, numbers: Array, wrong: Array, problems: Problems
) -> None:
    """Note the cells of a feature column that are no finite number, ``[len(rows)]``."""
    limit = float(np.finfo(np.float32).max)
    for index in np.flatnonzero(~(np.abs(numbers) <= limit)):
        row = int(rows[index])
        if wrong[index] is not None:
            what = f"{shown(wrong[index])} is not a number"
        elif np.isnan(numbers[index]):
            what = "is missing or NaN"
        elif np.isinf(numbers[index]):
            what = "is infinite"
        else:
            what = "is too large for float32"
        problems.add(
            f"{table.where(row, name)}: {what}: features are finite numbers; correct or remove the row"
        )


def read_vectors(table: Table, name: str, rows: Ints, problems: Problems) -> Array:
    """Return a column of lists as ``[len(rows), D]`` float32."""
    values, odd = _columns.matrix(table.columns[name])
    values, odd = values[rows], odd[rows]
    width = values.shape[1]
    problems.add_each(
        rows[odd],
        lambda row: f"{table.where(row, name)}: is not a list of {width} numbers as the others: correct it",
    )
    problems.add_each(
        np.flatnonzero([is_blurred(column) for column in values.T]),
        lambda column: f"{', '.join(table.files)}, column {name!r}, number {column + 1}: {BLURRED}",
    )
    with np.errstate(over="ignore"):
        result: Array = values.astype(np.float32) + np.float32(0)
    problems.add_each(
        rows[~np.isfinite(result).all(axis=1)],
        lambda row: (
            f"{table.where(row, name)}: has a number that is missing, NaN, infinite or too large: correct it"
        ),
    )
    return result
