from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.runtime.errors import DataError
from coterie.training.data import TableConfig, load_data

FINITE = "features are finite numbers; correct or remove the row"
ABSENT = "correct the cell, or leave it empty where the label is missing"


def problems(path: Any, **options: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load_data(TableConfig.model_validate({"path": path, **options}))
    return caught.value.problems


def texts(path: Any, **options: Any) -> tuple[str, ...]:
    defaults = {"task": "task", "target": "y", "text": "text", "tokens": {"min_frequency": 1}}
    return problems(path, **{**defaults, **options})


def features(path: Any, **options: Any) -> tuple[str, ...]:
    return problems(path, **{"task": "task", "target": "y", "features": ["x", "z"], **options})


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_mistake_of_a_csv_file_is_listed_with_line_and_column(tmp_path: Path) -> None:
    path = write(
        tmp_path / "reviews.csv",
        "task,y,text,split\n"
        "books,0,a fine text,train\n"  # line 2
        'books,1,"a text of\ntwo lines",train\n'  # lines 3 and 4
        "books,1,too,many,cells\n"  # 5
        "\n"  # 6: blank lines are no rows
        "books,2,out of range,train\n"  # 7
        "boks,1,unknown task,train\n"  # 8
        "books,,no label,train\n"  # 9
        "books,1,  ,train\n"  # 10
        ",1,no task,train\n"  # 11
        "books,1,strange split,trian\n"  # 12
        "books,1\n"  # 13
        "books,1,left out,other\n"  # 14
        "books,0.5,half a label,dev\n",  # 15
    )
    found = texts(
        path, tasks=["books", "music"], labels=["no", "yes"], split={"column": "split", "ignore": ["other"]}
    )
    assert set(found) == {
        "reviews.csv, line 5: has 5 cells where the header has 4: "
        "correct the line, or quote the cells that contain the delimiter",
        "reviews.csv, line 13: has 2 cells where the header has 4: "
        "correct the line, or quote the cells that contain the delimiter",
        "reviews.csv, line 7, column 'y': '2' is out of range: the labels count from 0 to 1 "
        "(set labels, or correct the cell)",
        "reviews.csv, line 8, column 'task': unknown task 'boks': did you mean 'books'? correct it, "
        "add it to tasks, or set other_tasks: ignore",
        "reviews.csv, line 9, column 'y': has no label: fill it in, or remove the row",
        "reviews.csv, line 10, column 'text': the text is empty: fill it in, remove the row, "
        "or set empty_texts: drop",
        "reviews.csv, line 11, column 'task': has no task: fill it in, or remove the row",
        "reviews.csv, line 12, column 'split': 'trian' is no split: did you mean 'train'? "
        "correct it, or name it in split.ignore",
        "reviews.csv, line 15, column 'y': '0.5' is not a class: classes are names or whole numbers",
        "reviews.csv: no row is of task 'music', which tasks names: remove it, or correct the data",
    }


def test_every_malformed_json_line_is_listed(tmp_path: Path) -> None:
    good = json.dumps({"task": "t", "y": 1, "text": "a"})
    path = write(tmp_path / "x.jsonl", f'{good}\n{{"task": \n\n[1, 2]\n{good[:-1]}\n"a"\n{"[" * 100_000}\n')
    found = texts(path, labels=["no", "yes"])
    assert [line.split(":")[0] for line in found if "line" in line] == [
        f"x.jsonl, line {n}" for n in (2, 4, 5, 6, 7)
    ]
    assert "x.jsonl, line 4: is [1, 2], not an object: write {column: value, ...}" in found


def test_bad_features_are_listed_by_row_and_column(tmp_path: Path) -> None:
    rows = [{"task": "t", "y": n % 2, "x": float(n), "z": 1.0} for n in range(8)]
    rows[1]["x"] = float("nan")
    rows[2]["z"] = float("inf")
    rows[3]["x"] = None
    rows[4]["z"] = 1e300
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert features(tmp_path / "x.parquet") == (
        f"x.parquet, row 2, column 'x': is missing or NaN: {FINITE}",
        f"x.parquet, row 4, column 'x': is missing or NaN: {FINITE}",
        f"x.parquet, row 3, column 'z': is infinite: {FINITE}",
        f"x.parquet, row 5, column 'z': is too large for float32: {FINITE}",
    )


def test_features_that_are_no_numbers_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "task,y,x,z\nt,0,1,2\nt,1,one,2\nt,0,1,nan\nt,1,,2\n")
    assert [line.split(":")[0] + ":" + line.split(":")[1] for line in features(path)] == [
        "x.csv, line 3, column 'x': 'one' is not a number",
        "x.csv, line 5, column 'x': is missing or NaN",
        "x.csv, line 4, column 'z': is missing or NaN",
    ]


def test_lists_of_another_length_are_listed(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"task": "t", "y": n % 2, "x": [1.0 * n, 2.0]} for n in range(8)]
    rows[2]["x"] = [1.0]
    rows[3]["x"] = None
    rows[5]["x"] = [1.0, float("nan")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    assert features(tmp_path / "x.parquet", features="x") == (
        "x.parquet, row 3, column 'x': is not a list of 2 numbers as the others: correct it",
        "x.parquet, row 4, column 'x': is not a list of 2 numbers as the others: correct it",
        "x.parquet, row 6, column 'x': has a number that is missing, NaN, infinite or too large: correct it",
    )


def test_missing_columns_are_all_named_with_the_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "Task,label,review_text,x\nt,0,a,1\n")
    found = texts(path, text="review_texts", target="lable", weight="importance", split={"column": "split"})
    assert set(found) == {
        "x.csv: has no column 'lable', which target names: did you mean 'label'?",
        "x.csv: has no column 'task', which task names: did you mean 'Task'?",
        "x.csv: has no column 'review_texts', which text names: did you mean 'review_text'?",
        "x.csv: has no column 'importance', which weight names: the columns are Task, label, review_text, x",
        "x.csv: has no column 'split', which split.column names: the columns are Task, label, review_text, x",
    }


def test_a_label_that_was_not_declared_names_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "task,y,text\nt,positive,a\nt,postive,b\nt,negative,c\nt,5,d\n")
    assert texts(path, labels=["negative", "positive"]) == (
        "x.csv, line 5, column 'y': '5' is not among the labels (negative, positive): "
        "correct the cell, or add it to labels",
        "x.csv, line 3, column 'y': 'postive' is not among the labels (negative, positive): "
        "did you mean 'positive'? correct the cell, or add it to labels",
    )


@pytest.mark.parametrize(
    ("kind", "cell", "said"),
    [
        ("multilabel", "2", "'2' is out of range: a label of a multilabel task is 0, 1 or missing"),
        (
            "multilabel",
            "yes",
            "'yes' is not a number: " + ABSENT,
        ),
        (
            "regression",
            "high",
            "'high' is not a number: " + ABSENT,
        ),
        (
            "regression",
            "inf",
            "inf is infinite: " + ABSENT,
        ),
    ],
)
def test_targets_of_the_wrong_kind_are_listed(tmp_path: Path, kind: str, cell: str, said: str) -> None:
    path = write(tmp_path / "x.csv", f"task,a,b,x\nt,0,1,1\nt,{cell},1,2\nt,1,,3\n")
    assert problems(path, task="task", target=["a", "b"], features="x", task_kind=kind) == (
        f"x.csv, line 3, column 'a': {said}",
    )


def test_a_row_without_any_label_is_a_mistake_and_one_with_some_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "task,a,b,x\nt,0,1,1\nt,,1,2\nt,,,3\n")
    assert problems(path, task="task", target=["a", "b"], features="x") == (
        "x.csv, line 4, column 'a, b': has no label: fill one in, or remove the row",
    )


@pytest.mark.parametrize("weight", ["-1", "nan", "inf", "heavy", ""])
def test_a_weight_is_a_finite_number_of_at_least_0(tmp_path: Path, weight: str) -> None:
    path = write(tmp_path / "x.csv", f"task,y,x,w\nt,0,1,1\nt,1,2,{weight}\nt,0,3,0\n")
    (line,) = problems(path, task="task", target="y", features="x", weight="w")
    assert line.startswith("x.csv, line 3, column 'w': ")
    assert line.endswith("is not a weight: weights are numbers of at least 0")


def test_a_task_of_one_class_is_a_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "task,y,x,z\nt,1,1,1\nt,1,2,1\nu,1,2,1\nu,0,3,1\n")
    assert features(path) == (
        "task 't': all its rows have the same class (1): declare its labels, or leave the task out",
    )


def test_a_task_called_as_the_router_is_a_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "task,y,x,z\nrouter,1,1,1\nrouter,0,2,1\n")
    assert features(path) == (
        "task 'router': 'router' is the name of the router model: give the task another name",
    )


def test_a_task_that_one_split_lacks_is_a_mistake(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.csv", "task,y,x,z,split\nt,1,1,1,train\nt,0,2,1,dev\nu,1,1,2,train\nu,0,1,3,train\n"
    )
    assert features(path, split={"column": "split"}) == (
        "task 'u' has no row in the dev split: add some, or leave the task out",
    )


def test_options_that_name_unknown_tasks_are_mistakes(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "task,y,x,z\nbooks,1,1,1\nbooks,0,2,1\nbooks,0,3,1\n")
    found = features(path, labels={"boks": ["a", "b"]}, task_kind={"music": "regression"})
    assert found == (
        "x.csv: no row is of task 'boks', which labels names: did you mean 'books'?",
        "x.csv: no row is of task 'music', which task_kind names: remove it, or correct the data",
    )


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.parquet", b"PAR1 nonsense", "is not a readable Parquet file"),
        ("x.csv", b"", "is empty"),
        ("x.jsonl", b"\n\n", "holds no readable row"),
        ("x.xlsx", b"PK", "cannot tell the format"),
        ("none.csv", None, "cannot be read (No such file or directory)"),
        ("none.parquet", None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_mistake(
    tmp_path: Path, name: str, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (line,) = texts(tmp_path / name)
    assert line.startswith(f"{name}: ")
    assert said in line


def test_bytes_that_are_no_utf_8_are_listed_by_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"task,y,text\nt,0,caf\xe9\nt,1,ok\nt,0,\xff\n")
    assert texts(tmp_path / "x.csv") == (
        "x.csv, line 2: byte 8 is not UTF-8: save the file as UTF-8",
        "x.csv, line 4: byte 5 is not UTF-8: save the file as UTF-8",
    )


def test_an_unclosed_quote_is_listed_where_it_opens(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", 'task,y,text\nt,0,fine\nt,1,"open\nt,0,more\n')
    assert texts(path)[0].startswith("x.csv, line 3: is not CSV (")


def test_two_columns_of_one_name_are_a_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "task,y,text,y\nt,0,a,1\nt,1,b,0\n")
    assert texts(path) == ("x.csv, line 1: two columns are called 'y': rename one of them",)


def test_a_flood_of_mistakes_is_cut_in_print_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "task,y,text\nt,0,a\nt,1,b\n" + "t,9,\n" * 3500)
    with pytest.raises(DataError) as caught:
        load_data(
            TableConfig(path={"all": path}, task="task", target=("y",), text="text", labels={"*": ("a", "b")})
        )
    lines = str(caught.value).splitlines()
    assert lines[0] == "the data set has 7000 mistakes (2000 of them are kept):"
    assert lines[-1] == "  ... and 1950 more"
    assert len(lines) == 52
    assert sum("the text is empty" in line for line in caught.value.problems) == 1000
    assert sum("'9' is out of range" in line for line in caught.value.problems) == 1000


CELLS = st.sampled_from(["t", "u", "0", "1", "7", "nan", "inf", "", " ", "x y", "é", "1e999", "-3.5"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.lists(CELLS, min_size=3, max_size=5), max_size=12), text=st.booleans())
def test_any_table_is_read_or_refused_with_listed_problems(
    tmp_path: Path, rows: list[list[str]], text: bool
) -> None:
    path = write(tmp_path / "x.csv", "task,y,x,split\n" + "".join(",".join(row) + "\n" for row in rows))
    asked = {"text": "x"} if text else {"features": "x"}
    try:
        data = load_data(TableConfig.model_validate({"path": path, "task": "task", "target": "y", **asked}))
    except DataError as error:
        assert error.problems  # noqa: PT017 - either outcome is right
    else:
        assert len(data.splits["train"]) > 0
