"""Data that a program has in memory already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from coterie.training.data._assemble import Pools, assemble, merge
from coterie.training.data._blurred import BLURRED, is_blurred
from coterie.training.data._config import MemoryConfig
from coterie.training.data._config_parts import check_input_names
from coterie.training.data._dataset import Array, Dataset
from coterie.training.data._problems import Problems
from coterie.training.data._questions import ask, split_codes, unanswered, unlabeled_rows
from coterie.training.data._table import read_weights
from coterie.training.data._tables import Table
from coterie.training.yaml_config import load_config

_WHERE = "arrays"

Given = npt.ArrayLike | Sequence[str]
"""Features, images or texts, n of them."""


def dataset_of(
    inputs: Given | Mapping[str, Given],
    target: npt.ArrayLike,
    task: npt.ArrayLike | None = None,
    *,
    weight: npt.ArrayLike | None = None,
    split: npt.ArrayLike | None = None,
    names: Sequence[str] | None = None,
    **options: Any,
) -> Dataset:
    """Make a data set of arrays.

    Args:
        inputs: Features ``[n, D]``, images ``[n, H, W]`` or ``[n, H, W, C]`` of uint8, or n texts. Equal rows
            are stored once. Several inputs are a mapping from their names to such values, n of each; one of
            them at most is of texts.
        target: Answers ``[n]``, numbers or names of classes. ``[n, T]`` are T columns: T tasks where there is
            no ``task``, else the T numbers or labels of each task. NaN and None are missing.
        task: The task of each row by name or number, ``[n]``.
        weight: Of each row, ``[n]``.
        split: ``train``, ``dev``, ``test`` or ``unlabeled`` for each row, ``[n]``; without it
            ``dev_share`` and ``test_share`` of the inputs are cut off.
        names: Names of the target's columns.
        options: Those of a data configuration (docs/data.md), such as ``task_kind``, ``labels``,
            ``dev_share``, ``test_share``, ``seed`` and ``tokens``.

    Raises:
        ConfigError: If an option is wrong.
        DataError: If anything in the arrays is wrong; every mistake is listed.
    """
    problems = Problems()
    pools = _pools(inputs, problems)
    problems.check()
    count = len(next(iter(pools.values())))
    answers = np.asarray(target)
    width = 1 if answers.ndim < 2 else answers.shape[1]
    if names is None:
        names = ["target"] if answers.ndim < 2 else [f"target[{index}]" for index in range(width)]
    given = {"task": task, "weight": weight, "split.column": split}
    source: dict[str, Any] = {name: name for name, values in given.items() if values is not None}
    if source.pop("split.column", None):
        source["split"] = {"column": "split.column", "unlabeled": "unlabeled"}
    config = load_config(MemoryConfig, source=options | source | {"target": list(names)})
    columns = {
        name: _column(name, np.asarray(values), count, problems)
        for name, values in given.items()
        if values is not None
    }
    if answers.ndim > 2 or len(config.target) != width:
        problems.add(
            f"target: has shape {list(answers.shape)} for {len(config.target)} names: give [n], or [n, T] "
            "and T names"
        )
        problems.check()
    for name, cells in zip(config.target, answers.reshape(len(answers), width).T, strict=True):
        columns[name] = _column(name, cells, count, problems)
    problems.check()
    rows = np.arange(count, dtype=np.int64)
    table = Table(columns, (_WHERE,), np.zeros(count, dtype=np.int64), rows + 1, "row", "array")
    codes = np.zeros_like(rows) if config.split is None else split_codes(table, config.split, problems)
    questions = ask(table, config, targets=config.target, kept=codes >= 0, problems=problems)
    weights = read_weights(table, config.weight, codes >= 0, problems)
    bare, bare_task = unanswered(
        table, config, questions.tasks, unlabeled_rows(table, config.split), problems
    )
    problems.check()
    distinct, first, place = merge(pools)
    return assemble(
        distinct,
        questions,
        config,
        inputs=place[questions.row],
        code=codes[questions.row],
        weight=None if weights is None else weights[questions.row],
        tokens=config.tokens,
        where=lambda item: table.where(int(first[item]), "inputs"),
        problems=problems,
        others=(place[bare], bare_task),
    )


def _pools(inputs: Given | Mapping[str, Given], problems: Problems) -> Pools:
    """Return every input by its name."""
    if not isinstance(inputs, Mapping):
        pool = _pool("inputs", inputs, problems)
        return {_name_of(pool): pool}
    try:
        check_input_names(inputs)
    except ValueError as error:
        problems.add(str(error))
    pools = {name: _pool(name, values, problems) for name, values in inputs.items()}
    texts = [name for name, pool in pools.items() if isinstance(pool, list)]
    problems.check()
    if len(texts) > 1:
        problems.add(f"inputs: {' and '.join(texts)} are texts: a model reads one; join them")
    if len({len(pool) for pool in pools.values()}) > 1:
        counted = ", ".join(f"{name} has {len(pool)}" for name, pool in pools.items())
        problems.add(f"inputs: differ in their numbers of rows ({counted}): give all the same")
    return pools


def _name_of(pool: Array | list[str]) -> str:
    if isinstance(pool, list):
        return "tokens"
    return "image" if pool.ndim == 4 else "inputs"


def _pool(name: str, inputs: Given, problems: Problems) -> Array | list[str]:
    array = np.asarray(inputs)
    if array.ndim == 1 and all(isinstance(item, str) and item.strip() for item in array):
        return [str(item) for item in array]
    if array.dtype == np.uint8 and array.ndim in (3, 4):
        return array[..., None] if array.ndim == 3 else array
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        problems.add(
            f"{name}: are {array.dtype.name} {list(array.shape)}: give numbers [n, D], images [n, H, W, C] "
            "of uint8, or a list of texts, none of them empty"
        )
        return []
    problems.add_each(
        np.flatnonzero([is_blurred(column) for column in array.T]),
        lambda column: f"{name}, column {column}: {BLURRED}",
    )
    with np.errstate(over="ignore"):
        # Adding 0 turns -0.0 into 0.0: equal rows are then equal byte by byte.
        pool: Array = array.astype(np.float32) + np.float32(0)
    problems.add_each(
        np.flatnonzero(~np.isfinite(pool).all(axis=1)),
        lambda row: f"{_WHERE}, row {row + 1}: has a feature that is no finite number of float32: correct it",
    )
    return pool


def _column(name: str, values: Array, count: int, problems: Problems) -> pa.ChunkedArray:
    if values.shape != (count,):
        problems.add(f"{name}: has shape {list(values.shape)} for {count} inputs: give one for each")
        return pa.chunked_array([pa.nulls(count)])
    try:
        return pa.chunked_array([pa.array(values.tolist(), from_pandas=True)])
    except (pa.ArrowException, TypeError) as error:
        reason = str(error).splitlines()[0]
        problems.add(f"{name}: cannot be read ({reason}): give numbers, or strings")
        return pa.chunked_array([pa.nulls(count)])
