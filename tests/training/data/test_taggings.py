"""Tables of sentences as lists of words, with a tag for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coterie.runtime.errors import DataError
from coterie.runtime.text import TextEncoder
from coterie.training.data import Dataset, TableConfig, load_data

ROWS: list[dict[str, Any]] = [
    {"split": split, "words": words, "pos": pos, "name": name}
    for split in ("train", "dev", "test", "other")
    for words, pos, name in (
        (["Ann", "sees", split], ["N", "V", "N"], ["B-p", "O", "O"]),
        (["the", "Old", "cat", "sleeps"], ["D", None, "N", "V"], None),
        (["No"], ["D"], ["O"]),
    )
]
SPLIT = {"column": "split", "ood": "other"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def load(path: Path, **options: Any) -> Dataset:
    tokens = {"min_frequency": 1, "word_length": 4, **options.pop("tokens", {})}
    defaults = {"path": path, "text": "words", "target": ["pos", "name"], "split": SPLIT, "tokens": tokens}
    return load_data(TableConfig.model_validate(defaults | options))


def mistakes(path: Path, rows: list[dict[str, Any]], **options: Any) -> list[str]:
    with pytest.raises(DataError) as caught:
        load(write(path, rows), **options)
    return list(caught.value.problems)


def changed(**cells: Any) -> list[dict[str, Any]]:
    return [ROWS[0] | cells, *ROWS[1:]]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_table_of_tagged_words_becomes_questions_about_each_sentence(tmp_path: Path, suffix: str) -> None:
    data = load(write(tmp_path / f"table.{suffix}", ROWS))
    pos, name = data.tasks
    assert (pos.kind, pos.labels, pos.metric) == ("tagging", ("D", "N", "V"), "accuracy")
    assert (name.labels, name.metric) == (("B-p", "O"), "f1")
    train = data.splits["train"]
    assert train.row.tolist() == [0, 0, 1, 2, 2]  # nobody tagged the names of the second sentence
    assert train.task.tolist() == [0, 1, 0, 0, 1]
    nan = np.nan
    expected = [[1, 2, 1, nan], [0, 1, 1, nan], [0, nan, 1, 2], [0, nan, nan, nan], [1, nan, nan, nan]]
    np.testing.assert_array_equal(train.target, np.array(expected, dtype=np.float32))


def test_words_are_ids_of_the_word_and_of_its_characters(tmp_path: Path) -> None:
    data = load(write(tmp_path / "table.parquet", ROWS))
    assert data.inputs[0].shape == (None, None, 5)
    assert data.text is not None
    encoder = TextEncoder(data.text.tokenizer, data.text.spec)
    batch = data.splits["train"].inputs.batch(np.array([0, 1]))
    assert batch.shape == (2, 4, 5)
    assert batch[0, 3].tolist() == [0] * 5
    np.testing.assert_array_equal(batch, encoder.encode([["Ann", "sees", "train"], "the Old cat sleeps"]))


def test_each_word_weighs_the_same(tmp_path: Path) -> None:
    train = load(write(tmp_path / "table.parquet", ROWS)).splits["train"]
    assert train.weight is not None
    np.testing.assert_allclose(train.weight / train.weight[3], [3, 3, 3, 1, 1])


def test_a_second_test_set_is_a_split_of_its_own(tmp_path: Path) -> None:
    data = load(write(tmp_path / "table.parquet", ROWS))
    assert list(data.splits) == ["train", "dev", "test", "ood"]
    assert len(data.splits["ood"].inputs) == 3
    found = mistakes(tmp_path / "other.parquet", ROWS, split={"column": "split"})
    assert "'other' is no split" in found[0]


def test_declared_tags_keep_their_order(tmp_path: Path) -> None:
    data = load(write(tmp_path / "table.parquet", ROWS), labels={"pos": ["V", "N", "D", "X"]})
    assert data.tasks[0].labels == ("V", "N", "D", "X")
    assert data.splits["train"].target[0, :3].tolist() == [1, 0, 1]
    found = mistakes(tmp_path / "table.jsonl", ROWS, labels={"pos": ["V", "N", "DX"]})
    assert "'D' is not among the labels (V, N, DX): did you mean 'DX'?" in found[0]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"pos": ["N", "V"]}, "row 1, column 'pos': has 2 tags for 3 words: give one for each"),
        ({"pos": [None, "", None]}, "row 1, column 'pos': has no tag: fill one in, or leave the cell empty"),
        ({"words": ["Ann", None, "x"]}, "row 1, column 'words': has a word that is missing or empty"),
        ({"words": ["Ann", " ", "x"]}, "row 1, column 'words': has a word that is missing or empty"),
        ({"words": [], "pos": None, "name": []}, "row 1, column 'words': the text is empty"),
        ({"words": None, "pos": None, "name": []}, "row 1, column 'words': the text is empty"),
    ],
)
def test_a_mistake_is_told_with_its_cell(tmp_path: Path, cells: dict[str, Any], expected: str) -> None:
    found = mistakes(tmp_path / "table.parquet", changed(**cells))
    assert any(expected in line for line in found), found


def test_sentences_may_not_be_longer_than_what_is_read(tmp_path: Path) -> None:
    found = mistakes(tmp_path / "table.parquet", ROWS, tokens={"max_length": 3})
    assert "row 2, column 'words': has more than 3 words: divide the row, or raise" in found[0]


def test_words_are_not_divided_any_more(tmp_path: Path) -> None:
    found = mistakes(tmp_path / "table.parquet", ROWS, tokens={"tokenizer": "words"})
    assert found == [
        "tokens.tokenizer: is words, but column 'words' holds lists of words, which are not divided any "
        "more: leave it out"
    ]


def test_tags_need_words(tmp_path: Path) -> None:
    rows = [row | {"words": " ".join(row["words"])} for row in ROWS]
    assert "a tagging has texts that are lists of words" in mistakes(tmp_path / "table.jsonl", rows)[0]


def test_taggings_and_other_tasks_are_not_of_one_model(tmp_path: Path) -> None:
    rows = [row | {"mood": ("good", "bad")[number % 2]} for number, row in enumerate(ROWS)]
    found = mistakes(tmp_path / "table.jsonl", rows, target=["pos", "mood"])
    assert found[0].startswith("tagging and other tasks cannot be of one model: pos (tagging), mood (class")


def test_lists_of_words_can_be_classified_as_well(tmp_path: Path) -> None:
    rows = [row | {"mood": ("good", "bad")[number % 2]} for number, row in enumerate(ROWS)]
    data = load(write(tmp_path / "table.jsonl", rows), target="mood")
    assert data.tasks[0].kind == "classification"
    assert data.splits["train"].weight is None
