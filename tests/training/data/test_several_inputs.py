"""Data of several named inputs: from tables, archives and memory."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.runtime.errors import ConfigError, DataError
from coterie.training.data import Dataset, dataset_of, load_data, read_data_config

ROWS = [("a fine flat", 1.5, 2.0, "good"), ("damp", 0.5, 3.0, "bad"), ("a fine flat", 0.0, 2.0, "good")] * 10
TABLE = {
    "kind": "table",
    "inputs": {"offer": {"text": "offer"}, "rooms": {"features": "size"}, "money": {"features": ["rent"]}},
    "target": "mood",
    "tokens": {"min_frequency": 1},
}
PICTURES = np.random.default_rng(0).integers(0, 256, (30, 4, 4), dtype=np.uint8)
YEARS = np.arange(30, dtype=np.float64)[:, None]
ARRAYS = {
    "kind": "arrays",
    "inputs": {"picture": {"images": "pictures"}, "year": {"features": "years"}},
    "target": "y",
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    with (tmp_path / "offers.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("offer", "size", "rent", "mood"), *ROWS])
    return tmp_path / "offers.csv"


def load(path: Path, raw: dict[str, Any], **more: Any) -> Dataset:
    return load_data(read_data_config(raw | {"path": str(path)} | more))


def archive(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(
        folder / "archive.npz", **{"pictures": PICTURES, "years": YEARS, "y": np.arange(30) % 2} | arrays
    )
    return folder / "archive.npz"


def test_a_table_has_an_input_of_each_group_of_columns(table: Path) -> None:
    data = load(table, TABLE)
    assert [(spec.name, spec.dtype, spec.shape) for spec in data.inputs] == [
        ("offer", "int64", (None, None)),
        ("rooms", "float32", (None, 1)),
        ("money", "float32", (None, 1)),
    ]
    train = data.splits["train"]
    tokens, rooms, money = train.inputs.batch(train.row)
    assert len(tokens) == len(rooms) == len(money) == len(train)
    # The answer tells which of the three rows each is.
    bad = train.target[:, 0] == list(data.tasks[0].labels).index("bad")
    assert (rooms[bad] == 0.5).all()
    assert (money[bad] == 3.0).all()
    assert ((tokens[bad] > 0).sum(axis=1) == 1).all()
    assert ((tokens[~bad] > 0).sum(axis=1) == 3).all()


def test_rows_are_the_same_input_only_where_every_tensor_is(table: Path) -> None:
    data = load(table, TABLE, dev_share=0.5)
    assert sum(len(split.inputs) for split in data.splits.values()) == 3


def test_an_archive_has_an_input_of_each_array(tmp_path: Path) -> None:
    data = load(archive(tmp_path), ARRAYS)
    assert [(spec.name, spec.dtype, spec.shape) for spec in data.inputs] == [
        ("picture", "uint8", (None, 4, 4, 1)),
        ("year", "float32", (None, 1)),
    ]
    for split in data.splits.values():
        pictures, years = split.inputs.batch(split.row)
        assert np.array_equal(pictures[..., 0], PICTURES[years[:, 0].astype(int)])


def test_archives_are_put_one_after_the_other(tmp_path: Path) -> None:
    first = archive(tmp_path).rename(tmp_path / "train.npz")
    second = archive(tmp_path, years=YEARS + 100)
    data = load_data(read_data_config(ARRAYS | {"path": {"train": str(first), "dev": str(second)}}))
    _, years = data.splits["dev"].inputs.batch(data.splits["dev"].row)
    assert years.min() == 100


def test_memory_takes_a_mapping() -> None:
    texts = [offer for offer, *_ in ROWS]
    numbers = np.array([row[1:3] for row in ROWS])
    data = dataset_of({"offer": texts, "numbers": numbers}, [row[3] for row in ROWS], dev_share=0.4)
    assert [spec.name for spec in data.inputs] == ["offer", "numbers"]
    assert data.text is not None
    tokens, found = data.splits["dev"].inputs.batch(np.array([0]))
    assert (tokens.dtype, found.dtype) == (np.int64, np.float32)


def test_what_the_inputs_are_called_and_hold_is_in_the_checksum(table: Path) -> None:
    renamed = {**TABLE["inputs"]}  # type: ignore[dict-item]
    renamed["prices"] = renamed.pop("money")
    sums = {
        load(table, TABLE).sha256,
        load(table, TABLE).sha256,
        load(table, TABLE | {"inputs": renamed}).sha256,
    }
    assert len(sums) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {"offer": {"text": "offer"}}}, "name two or more"),
        ({"inputs": {"a": {"text": "offer"}, "b": {"text": "mood"}}}, "a and b are texts: a model reads one"),
        ({"inputs": {"row": {"text": "offer"}, "b": {"features": "size"}}}, "'row' is a name"),
        ({"inputs": {"an offer": {"text": "offer"}, "b": {"features": "size"}}}, "'an offer' is no name"),
        (
            {"inputs": {"a": {"text": "offer", "features": "size"}, "b": {"features": "size"}}},
            "give either text",
        ),
        ({"text": "offer"}, "give either text .one column., features .one or more columns. or inputs"),
    ],
)
def test_inputs_that_no_model_could_take_are_mistakes_of_the_configuration(
    table: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(table, TABLE | changes)


def test_a_column_that_is_missing_is_named_with_its_input(table: Path) -> None:
    inputs = {"offer": {"text": "offer"}, "rooms": {"features": "sise"}}
    with pytest.raises(
        DataError, match=r"no column 'sise', which inputs\.rooms\.features names: did you mean 'size'"
    ):
        load(table, TABLE | {"inputs": inputs})


def test_arrays_of_unlike_lengths_are_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="array 'years': has 29 elements for 30 rows"):
        load(archive(tmp_path, years=YEARS[:29]), ARRAYS)
    with pytest.raises(DataError, match=r"differ in their numbers of rows \(a has 3, b has 2\)"):
        dataset_of({"a": np.zeros((3, 2)), "b": np.zeros((2, 2))}, [0, 1, 0])
    with pytest.raises(DataError, match="a and b are texts: a model reads one"):
        dataset_of({"a": ["x", "y"], "b": ["u", "v"]}, [0, 1])
    with pytest.raises(DataError, match="name two or more"):
        dataset_of({"a": np.zeros((3, 2))}, [0, 1, 0])
