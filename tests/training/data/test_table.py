from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from coterie.training.data import Dataset, TableConfig, load_data

ROWS = [
    {
        "task": task,
        "split": split,
        "label": label,
        "text": f"{word} {task} number {number} , {'very ' * number}nice",
    }
    for number in range(6)
    for task in ("books", "music")
    for split in ("train", "dev", "test", "leaked")
    for label, word in ((0, "bad"), (1, "good"))
]
SPLIT = {"column": "split", "ignore": ["leaked"]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(path: Any, **options: Any) -> Dataset:
    return load_data(TableConfig.model_validate({"path": path, **options}))


def texts(path: Path, **options: Any) -> Dataset:
    tokens = {"min_frequency": 1, **options.pop("tokens", {})}
    return load(path, task="task", target="label", text="text", tokens=tokens, **{"split": SPLIT, **options})


@pytest.fixture(params=["parquet", "csv", "jsonl"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_long_table_of_texts_becomes_questions(tmp_path: Path, suffix: str) -> None:
    data = texts(write(tmp_path / f"reviews.{suffix}", ROWS), labels=["negative", "positive"])
    assert [task.name for task in data.tasks] == ["books", "music"]
    assert all(
        task.labels == ("negative", "positive") and task.kind == "classification" for task in data.tasks
    )
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "dev": 24, "test": 24}
    train = data.splits["train"]
    assert train.target.shape == (24, 1)
    assert train.target.dtype == np.float32
    assert data.text is not None
    tokenizer = Tokenizer.from_str(data.text.tokenizer)
    good = tokenizer.token_to_id("good")
    books = tokenizer.token_to_id("books")
    for row, task, target in zip(train.row, train.task, train.target[:, 0], strict=True):
        tokens = train.inputs.batch(np.array([row]))[0].tolist()
        assert (good in tokens) == (target == 1)
        assert (books in tokens) == (task == 0)


def test_the_same_content_has_the_same_checksum_in_every_format(tmp_path: Path) -> None:
    found = {texts(write(tmp_path / f"x.{suffix}", ROWS)).sha256 for suffix in ("parquet", "csv", "jsonl")}
    assert len(found) == 1
    changed = [*ROWS[:-4], {**ROWS[-4], "text": "another text"}, *ROWS[-3:]]
    assert texts(write(tmp_path / "y.csv", changed)).sha256 not in found


def test_the_tokenizer_knows_the_training_split_alone(tmp_path: Path) -> None:
    rows = [{**row, "text": f"{row['text']} only{row['split']}"} for row in ROWS]
    data = texts(write(tmp_path / "x.parquet", rows))
    assert data.text is not None
    vocabulary = Tokenizer.from_str(data.text.tokenizer).get_vocab()
    assert vocabulary["[PAD]"] == 0
    assert vocabulary["[UNK]"] == 1
    assert "onlytrain" in vocabulary
    assert not {"onlydev", "onlytest", "onlyleaked"} & set(vocabulary)
    assert data.text.vocabulary == len(vocabulary)
    assert data.inputs[0].name == "tokens"
    assert data.inputs[0].shape == (None, None)


@pytest.mark.parametrize("tokenizer", ["whitespace", "words", "bpe"])
def test_every_kind_of_tokenizer_is_trained_the_same_way_twice(tmp_path: Path, tokenizer: str) -> None:
    path = write(tmp_path / "x.parquet", ROWS)
    options = {"tokenizer": tokenizer, "vocabulary": 300, "max_length": 5}
    first, second = (texts(path, tokens=options) for _ in range(2))
    assert first.text == second.text
    assert first.sha256 == second.sha256
    assert first.splits["train"].inputs.batch(np.arange(12)).shape == (12, 5)


def test_vocabulary_frequency_and_case_are_options(tmp_path: Path) -> None:
    rows = [
        {**row, "text": f"Common {'Rare' if number == 0 else 'common'}"} for number, row in enumerate(ROWS)
    ]
    path = write(tmp_path / "x.parquet", rows)

    def words(**tokens: Any) -> set[str]:
        text = texts(path, tokens=tokens).text
        assert text is not None
        return set(Tokenizer.from_str(text.tokenizer).get_vocab()) - {"[PAD]", "[UNK]"}

    assert words() == {"common", "rare"}
    assert words(lowercase=False) == {"Common", "common", "Rare"}
    assert words(min_frequency=2) == {"common"}
    assert words(vocabulary=3) == {"common"}


def test_an_input_labelled_for_several_tasks_is_stored_once(tmp_path: Path, suffix: str) -> None:
    rows = [
        {"task": task, "y": number % 2, "a": number / 4, "b": -0.0 if task == "t1" else 0.0}
        for number in range(20)
        for task in ("t0", "t1", "t2")
    ]
    data = load(write(tmp_path / f"x.{suffix}", rows), task="task", target="y", features=["a", "b"])
    train, dev = data.splits["train"], data.splits["dev"]
    assert (len(train.inputs), len(train)) == (18, 54)
    assert (len(dev.inputs), len(dev)) == (2, 6)
    assert (
        train.inputs.batch(train.row)[:, 0].tolist()
        == np.repeat(train.inputs.batch(np.arange(18))[:, 0], 3).tolist()
    )
    assert data.inputs[0].model_dump() == {"name": "inputs", "dtype": "float32", "shape": (None, 2)}


def test_a_wide_table_has_a_task_for_each_target_column(tmp_path: Path, suffix: str) -> None:
    rows = [
        {
            "x_0": number * 1.5,
            "x_1": number,
            "toxic": None if number % 3 == 0 else number % 2,
            "colour": ("red", "green", "blue")[number % 3],
            "weight": number + 0.5,
        }
        for number in range(60)
    ]
    data = load(write(tmp_path / f"x.{suffix}", rows), target=["toxic", "colour", "weight"], features="x_*")
    toxic, colour, weight = data.tasks
    assert (toxic.kind, toxic.labels) == ("classification", ("0", "1"))
    assert (colour.kind, colour.labels) == ("classification", ("blue", "green", "red"))
    assert (weight.kind, weight.labels) == ("regression", ("weight",))
    assert sum(len(split.of_task(0)) for split in data.splits.values()) == 40
    assert sum(len(split.of_task(1)) for split in data.splits.values()) == 60
    train = data.splits["train"]
    mine = train.of_task(2)
    assert np.allclose(train.inputs.batch(train.row[mine])[:, 0] / 1.5 + 0.5, train.target[mine, 0])


def test_several_target_columns_of_a_long_table_are_labels_that_may_be_missing(
    tmp_path: Path, suffix: str
) -> None:
    rows = [
        {"task": f"t{number % 2}", "x": number, "a": number % 2, "b": None if number % 4 else 1, "c": 0}
        for number in range(40)
    ]
    data = load(write(tmp_path / f"x.{suffix}", rows), task="task", target=["a", "b", "c"], features="x")
    assert [(task.kind, task.labels) for task in data.tasks] == [("multilabel", ("a", "b", "c"))] * 2
    train = data.splits["train"]
    number = train.inputs.batch(train.row)[:, 0]
    assert np.isnan(train.target[:, 1]).tolist() == (number % 4 != 0).tolist()
    assert np.array_equal(train.target[:, 0], number % 2)


def test_tasks_may_differ_in_kind_and_width(tmp_path: Path) -> None:
    rows = [{"x": n, "task": ("price", "shape")[n % 2], "y": n % 3 if n % 2 else n + 0.5} for n in range(40)]
    data = load(
        write(tmp_path / "x.csv", rows),
        task="task",
        target="y",
        features="x",
        task_kind={"shape": "classification", "*": "regression"},
    )
    assert [(task.name, task.kind, task.width) for task in data.tasks] == [
        ("price", "regression", 1),
        ("shape", "classification", 3),
    ]


def test_numbers_of_a_column_are_not_classes_because_a_small_task_has_few(tmp_path: Path) -> None:
    rows = [{"x": n, "task": "big", "y": n * 0.1} for n in range(40)]
    rows += [{"x": n, "task": "small", "y": float(n % 2)} for n in range(4)]
    data = load(write(tmp_path / "x.jsonl", rows), task="task", target="y", features="x")
    assert [task.kind for task in data.tasks] == ["regression", "regression"]


@pytest.mark.parametrize(("classes", "labels"), [("within_task", ["12", "57"]), ("shared", ["1257", "1257"])])
def test_classes_are_ranked_within_a_task_or_shared(tmp_path: Path, classes: str, labels: list[str]) -> None:
    rows = [{"x": n, "task": "ab"[n % 2], "y": ((1, 2), (5, 7))[n % 2][n // 2 % 2]} for n in range(60)]
    data = load(write(tmp_path / "x.csv", rows), task="task", target="y", features="x", classes=classes)
    assert ["".join(task.labels) for task in data.tasks] == labels


def test_declared_labels_order_the_classes_by_name(tmp_path: Path, suffix: str) -> None:
    rows = [{"x": n, "task": "t", "y": ("low", "high", "middle")[n % 3]} for n in range(30)]
    path = write(tmp_path / f"x.{suffix}", rows)
    data = load(path, task="task", target="y", features="x", labels={"t": ["low", "middle", "high"]})
    train = data.splits["train"]
    expected = np.array([0, 2, 1])[train.inputs.batch(train.row)[:, 0].astype(int) % 3]
    assert np.array_equal(train.target[:, 0], expected)


def test_only_the_wanted_tasks_are_kept_in_their_order(tmp_path: Path, suffix: str) -> None:
    rows = [{"x": n, "task": f"t{n % 4}", "y": n // 4 % 2} for n in range(40)]
    rows.append({"x": None, "task": "t3", "y": None})  # nobody asks about it
    path = write(tmp_path / f"x.{suffix}", rows)
    data = load(path, task="task", target="y", features="x", tasks=["t2", "t0"], other_tasks="ignore")
    assert [task.name for task in data.tasks] == ["t2", "t0"]
    train = data.splits["train"]
    assert set(train.inputs.batch(train.row[train.task == 0])[:, 0] % 4) == {2}


def test_weights_follow_their_rows(tmp_path: Path, suffix: str) -> None:
    rows = [{"x": n, "task": f"t{n % 2}", "y": n // 2 % 2, "w": n / 10} for n in range(40)]
    path = write(tmp_path / f"x.{suffix}", rows)
    train = load(path, task="task", target="y", features="x", weight="w").splits["train"]
    assert train.weight is not None
    assert np.allclose(train.weight, train.inputs.batch(train.row)[:, 0] / 10)


def test_a_column_of_lists_is_a_matrix(tmp_path: Path) -> None:
    rows = [{"x": [n, n + 1.5], "task": "t", "y": n % 2} for n in range(20)]
    for suffix in ("parquet", "jsonl"):
        data = load(write(tmp_path / f"x.{suffix}", rows), task="task", target="y", features="x")
        values = data.splits["train"].inputs.batch(np.arange(18))
        assert np.allclose(values[:, 1] - values[:, 0], 1.5)


def test_dev_is_cut_from_train_for_each_task_and_shares_no_input_with_it(tmp_path: Path) -> None:
    rows = [
        {"x": n, "task": f"t{t}", "y": n % 2}
        for t in range(3)
        for n in range(100 * t, 100 * t + 50 * (t + 1))
    ]
    rows += [{"x": n, "task": "t3", "y": n // 2 % 2} for n in range(0, 340, 2)]
    path = write(tmp_path / "x.parquet", rows)
    options = {"task": "task", "target": "y", "features": "x", "dev_share": 0.2, "test_share": 0.2}
    data = load(path, **options)
    total = np.array([50, 100, 150, 0])
    seen: dict[str, set[float]] = {}
    for name, split in data.splits.items():
        seen[name] = set(split.inputs.batch(np.arange(len(split.inputs)))[:, 0].tolist())
        if name != "train":
            share = np.bincount(split.task, minlength=4)[:3] / total[:3]
            assert (share > 0.1).all()
            assert (share < 0.3).all()
    assert not seen["train"] & seen["dev"]
    assert not seen["train"] & seen["test"]
    assert not seen["dev"] & seen["test"]
    shuffled = write(tmp_path / "y.parquet", rows[::-1])
    again = load(shuffled, **options).splits["dev"]
    assert set(again.inputs.batch(np.arange(len(again.inputs)))[:, 0].tolist()) == seen["dev"]
    other = load(path, **options, seed=1).splits["dev"]
    assert set(other.inputs.batch(np.arange(len(other.inputs)))[:, 0].tolist()) != seen["dev"]


def test_a_share_of_the_training_rows_can_be_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", ROWS)
    whole, part = texts(path), texts(path, train_share=0.25)
    assert len(part.splits["train"]) == len(whole.splits["train"]) // 4
    assert np.bincount(part.splits["train"].task).tolist() == [3, 3]
    assert len(part.splits["test"]) == len(whole.splits["test"])


def test_each_split_may_be_a_file_of_its_own(tmp_path: Path) -> None:
    paths = {}
    for name, suffix in (("train", "csv"), ("test", "parquet")):
        rows = [{key: row[key] for key in ("task", "label", "text")} for row in ROWS if row["split"] == name]
        paths[name] = write(tmp_path / f"{name}.{suffix}", rows)
    data = texts(paths, split=None)  # type: ignore[arg-type]
    assert len(data.splits["train"]) + len(data.splits["dev"]) == 24
    assert len(data.splits["test"]) == 24


def test_csv_cells_may_hold_delimiters_quotes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "x.tsv"
    lines = "".join(f'"a ""quoted""\tword\nand a line {n}"\tt\t{n % 2}\n' for n in range(10))
    path.write_text("text\ttask\ty\n" + lines)
    data = load(path, task="task", target="y", text="text", tokens={"min_frequency": 1})
    assert data.text is not None
    assert {'"quoted"', "line", "word"} <= set(Tokenizer.from_str(data.text.tokenizer).get_vocab())


def test_a_document_longer_than_the_csv_modules_limit_is_read(tmp_path: Path) -> None:
    import csv

    limit = csv.field_size_limit()
    path = tmp_path / "x.csv"
    path.write_text("text,task,y\n" + "".join(f"{'word ' * 40_000}{n},t,{n % 2}\n" for n in range(4)))
    data = load(path, task="task", target="y", text="text")
    assert data.splits["train"].inputs.batch(np.array([0])).shape == (1, 512)
    assert csv.field_size_limit() == limit


def test_rows_without_a_text_can_be_dropped(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"x.{suffix}", [*ROWS, {**ROWS[0], "text": "  "}, {**ROWS[0], "text": None}])
    assert len(texts(path, empty_texts="drop").splits["train"]) == 24
