"""Rows without a label are questions that only a teacher answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.runtime.errors import DataError
from coterie.training import Dataset, dataset_of
from coterie.training.data import TableConfig, load_data
from coterie.training.yaml_config import load_config

SPLIT = {"column": "split", "unlabeled": "more", "ignore": ["*"]}


def load(path: Path, columns: dict[str, list[Any]], **options: Any) -> Dataset:
    pq.write_table(pa.table(columns), path / "table.parquet")
    source = {"path": str(path / "table.parquet"), "split": SPLIT, **options}
    return load_data(load_config(TableConfig, source=source))


def long(**changes: list[Any]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        "text": ["a b", "b a", "a c", "c a", "new words", "a b", "new words"],
        "shop": ["x", "y", "x", "y", "y", "x", "x"],
        "y": [0, 1, 1, 0, None, None, None],
        "split": ["train", "train", "dev", "dev", "more", "more", "more"],
    }
    return {**columns, **changes}


LONG = {"text": "text", "task": "shop", "target": "y", "labels": ["no", "yes"]}


def test_a_row_is_a_question_of_its_task(tmp_path: Path) -> None:
    data = load(tmp_path, long(), **LONG, tokens={"min_frequency": 1})
    split = data.unanswered
    assert split is not None
    assert [data.tasks[number].name for number in split.task] == ["y", "x", "x"]
    assert np.isnan(split.target).all()
    assert len(split.inputs) == 2  # equal texts are stored once
    batch = np.asarray(split.inputs.batch(split.row))
    assert batch[0].tolist() == batch[2].tolist() != batch[1].tolist()
    assert len(data.splits["train"]) == 2


def test_a_pattern_may_name_them_and_takes_no_row_of_a_split(tmp_path: Path) -> None:
    split = {"column": "split", "unlabeled": ["m*", "*"]}
    by_pattern = load(tmp_path, long(), **LONG, split=split).unanswered
    assert by_pattern is not None
    assert len(by_pattern) == 3


def test_the_tokenizer_learns_their_words(tmp_path: Path) -> None:
    data = load(tmp_path, long(), **LONG, tokens={"min_frequency": 1})
    assert data.text is not None
    assert '"new"' in data.text.tokenizer
    assert '"c"' not in data.text.tokenizer  # of dev alone


def test_they_are_part_of_the_checksum(tmp_path: Path) -> None:
    one = load(tmp_path, long(), **LONG)
    other = load(tmp_path, long(shop=["x", "y", "x", "y", "x", "x", "x"]), **LONG)
    assert one.sha256 != other.sha256


def test_a_row_of_a_wide_table_is_a_question_of_every_task(tmp_path: Path) -> None:
    columns = {
        "size": [0.1, 0.2, 0.3, 0.4, 0.5],
        "p": [0, 1, 0, 1, None],
        "q": [1, 0, 1, 0, None],
        "split": ["train", "train", "dev", "dev", "more"],
    }
    data = load(tmp_path, columns, features=["size"], target=["p", "q"], labels=["no", "yes"])
    assert data.unanswered is not None
    assert data.unanswered.task.tolist() == [0, 1]
    assert data.unanswered.row.tolist() == [0, 0]
    assert np.asarray(data.unanswered.inputs.batch(np.array([0]))).ravel().tolist() == [np.float32(0.5)]
    assert not data.unlabeled  # these are texts


def test_a_row_of_a_task_without_labels_is_a_mistake_unless_others_are_left_out(tmp_path: Path) -> None:
    columns = long(shop=["x", "y", "x", "y", "z", "x", "x"])
    with pytest.raises(DataError, match="row 5, column 'shop': an unlabeled row is of no task"):
        load(tmp_path, columns, **LONG)
    data = load(tmp_path, columns, **LONG, other_tasks="ignore")
    assert data.unanswered is not None
    assert data.unanswered.task.tolist() == [0, 0]


def test_arrays_in_memory_have_them_too() -> None:
    split = np.array(["train"] * 4 + ["dev"] * 4 + ["unlabeled"] * 3, dtype=object)
    target = np.array([0, 1, 0, 1] * 2 + [None] * 3, dtype=object)
    features = np.arange(22, dtype=np.float32).reshape(11, 2)
    data = dataset_of(features, target, ["a", "a", "b", "b"] * 2 + ["a", "b", "a"], split=split)
    assert data.unanswered is not None
    assert data.unanswered.task.tolist() == [0, 1, 0]
    assert np.asarray(data.unanswered.inputs.batch(data.unanswered.row))[:, 0].tolist() == [16, 18, 20]
    assert data.splits.keys() == {"train", "dev"}
