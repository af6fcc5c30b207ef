"""``coterie predict``: every kind of input, the engine's numbers."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.runtime import Engine, load

from .conftest import Command

INPUTS = np.array([[0.5, -1.0, 2.0, 0.25], [1.0, 0.0, -0.5, 3.0], [0.0, 0.0, 0.0, 0.0]], dtype=np.float32)


@pytest.fixture(scope="module")
def engine(bundle: Path) -> Engine:
    return load(bundle, threads=1)


def check(engine: Engine, output: str, tasks: list[str]) -> None:
    answers = json.loads(output)["answers"]
    assert len(answers) == len(INPUTS)
    for task in tasks:
        expected = engine.predict(task, INPUTS)
        for answer, result in zip(answers, expected, strict=True):
            assert list(answer) == tasks
            assert answer[task]["label"] == result.label
            assert answer[task]["probabilities"] == pytest.approx(result.probabilities, abs=1e-6)
            assert answer[task]["scores"] == pytest.approx(result.scores, abs=1e-5)


def write(path: Path, ending: str) -> Path:
    file = path / f"inputs.{ending}"
    rows = "\n".join(",".join(map(str, row)) for row in INPUTS.tolist())
    if ending == "npy":
        np.save(file, INPUTS)
    elif ending == "json":
        file.write_text(json.dumps(INPUTS.tolist()), encoding="utf-8")
    else:
        file.write_text(f"a,b,c,d\n{rows}\n", encoding="utf-8")
    return file


@pytest.mark.parametrize("ending", ["json", "npy", "csv"])
def test_a_file_of_numbers(
    coterie: Command, engine: Engine, bundle: Path, tmp_path: Path, ending: str
) -> None:
    result = coterie("predict", bundle, "-i", write(tmp_path, ending), "--json")
    assert result.exit_code == 0, result.output
    check(engine, result.stdout, [task.name for task in engine.tasks])


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(INPUTS.tolist()),
        json.dumps({"inputs": INPUTS.tolist()}),
        "\n".join(",".join(map(str, row)) for row in INPUTS.tolist()),
    ],
)
def test_a_pipe(coterie: Command, engine: Engine, bundle: Path, content: str) -> None:
    tasks = [engine.tasks[4].name, engine.tasks[1].name]
    result = coterie("predict", bundle, "-t", tasks[0], "-t", tasks[1], "-i", "-", "--json", stdin=content)
    assert result.exit_code == 0, result.output
    check(engine, result.stdout, tasks)


def test_the_table_has_a_line_for_each_question(
    coterie: Command, engine: Engine, bundle: Path, tmp_path: Path
) -> None:
    lines = coterie("predict", bundle, "-i", write(tmp_path, "npy")).stdout.splitlines()
    assert len(lines) == 1 + len(INPUTS) * len(engine.tasks)
    task = engine.tasks[2]
    result = engine.predict(task.name, INPUTS)[1]
    assert isinstance(result.label, str)
    assert result.probabilities is not None
    line = next(line for line in lines if line.startswith("1 ") and task.name in line)
    assert line.split()[-2:] == [result.label, f"{result.probabilities[result.label]:.4f}"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.json", "{", "is not JSON"),
        ("x.json", "3", "put it in a list"),
        ("x.json", "[[1, 2]]", "expected [R, 4]"),
        ("x.json", "[" * 100_000, "nested too deep"),
        ("x.csv", "1,2,3,4\n1,2,3", "line 2: has 3 cells, but the bundle takes 4 numbers a row"),
        ("x.csv", "a,b,c,d,e\n1,2,3,4,5", "line 1: has 5 cells, but the bundle takes 4 numbers a row"),
        ("x.csv", "1;2;3;4", "line 1: has 1 cell, but"),
        ("x.csv", "a,b,c,d\n\n1,2,3,4\n1,2,x,4", "line 4, column 3: is 'x', not a finite number"),
        ("x.csv", 'a,"b\nc",d,e\n1,2,3,4\n1,2,3,-inf', "line 4, column 4: is '-inf'"),
        ("x.csv", "1,2,3,4\n1,2,3," + "y" * 200_000, "line 2, column 4: is 'yyyy"),
        ("x.npy", "no array", "is not a NumPy file"),
        ("x.npy", "PK\x03\x04", "is not a NumPy file"),
        ("x.txt", "words", "takes numbers"),
        ("x.pdf", "", "is none of"),
    ],
)
def test_a_file_that_is_wrong(  # noqa: PLR0917 - pytest passes them by name
    coterie: Command, bundle: Path, tmp_path: Path, name: str, content: str, told: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    result = coterie("predict", bundle, "-i", tmp_path / name)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize("cell", ["", "  ", "nan", "inf", "1e400", "x"])
@pytest.mark.parametrize("place", [0, 3])
def test_a_first_row_of_numbers_is_an_input_whatever_one_of_its_cells_holds(
    coterie: Command, bundle: Path, cell: str, place: int
) -> None:
    cells = ["1", "2", "3", "4"]
    cells[place] = cell
    content = f"{','.join(cells)}\n1,2,3,4\n"
    result = coterie("predict", bundle, "-i", "-", "-t", "task_0", stdin=content)
    assert result.exit_code == 2, result.output
    what = repr(cell) if cell.strip() else "empty"
    assert f"the standard input, line 1, column {place + 1}: is {what}, not a finite number" in result.stderr


@pytest.mark.parametrize("header", ["a,b,c,d", "height,,,", "1st,2nd,3rd,4", '"x, in m",y,z,2020'])
def test_a_first_line_of_names_is_left_out(
    coterie: Command, engine: Engine, bundle: Path, header: str
) -> None:
    rows = "\n".join(",".join(map(str, row)) for row in INPUTS.tolist())
    task = engine.tasks[0].name
    result = coterie("predict", bundle, "-i", "-", "-t", task, "--json", stdin=f"{header}\n{rows}\n")
    assert result.exit_code == 0, result.output
    check(engine, result.stdout, [task])


def _header(raw: bytes) -> bytes:
    return raw.replace(b"(", b" ", 1)


def _huge(raw: bytes) -> bytes:
    return raw.replace(b"(3, 4), }" + b" " * 12, b"(3, 4000000000000), }")


@pytest.mark.parametrize(
    "damage", [_header, _huge, lambda raw: raw[:-1], lambda raw: raw[:20], lambda _: b""]
)
def test_a_damaged_array_is_told(
    coterie: Command, bundle: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    file = write(tmp_path, "npy")
    whole = file.read_bytes()
    assert damage(whole) != whole
    file.write_bytes(damage(whole))
    result = coterie("predict", bundle, "-i", file)
    assert result.exit_code == 2, result.output
    assert "inputs.npy is not a NumPy file of numbers" in result.stderr


def test_an_array_without_a_dimension_is_no_list_of_inputs(
    coterie: Command, bundle: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.array(1.0))
    result = coterie("predict", bundle, "-i", tmp_path / "x.npy")
    assert result.exit_code == 2
    assert "holds one value" in result.stderr


def test_a_pipe_that_is_not_utf_8(bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coterie.cli", "predict", str(bundle), "-i", "-"],
        input=b"1,2,3,\xff",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == b"error: the standard input is not UTF-8 text: save it as UTF-8\n"


def test_a_pickle_is_not_loaded(coterie: Command, bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    result = coterie("predict", bundle, "-i", tmp_path / "x.npy")
    assert result.exit_code == 2
    assert "is not a NumPy file of numbers" in result.stderr


def test_mistakes_in_the_question(coterie: Command, bundle: Path, tmp_path: Path) -> None:
    numbers = write(tmp_path, "npy")
    for words, told in (
        (["-i", numbers, "-t", "nobody"], "'nobody'"),
        (["-i", tmp_path / "absent.npy"], "cannot read"),
        (["--text", "words"], "takes numbers, not text"),
        (["-i", numbers, "--text", "words"], "either --text or --input"),
    ):
        result = coterie("predict", bundle, *words)
        assert result.exit_code == 2
        assert told in result.stderr


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory, coterie: Command) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    kinds = (("good", "fine"), ("bad", "poor"))
    rows = [f"{verdict},{word} thing number {at % 5}" for at in range(30) for verdict, word in kinds]
    (folder / "texts.csv").write_text("\n".join(["verdict,words", *rows]), encoding="utf-8")
    (folder / "texts.yaml").write_text(
        "data: {kind: table, path: texts.csv, target: verdict, text: words, dev_share: 0.2}\n"
        "model: {stages: [{kind: hard, block: {kind: ngram_bag, width: 4, buckets: 64}}]}\n"
        "trainer: {epochs: 20, lr: 0.05, threads: 1}",
        encoding="utf-8",
    )
    for words in (
        ("train", folder / "texts.yaml", "--run", folder / "run", "-q"),
        ("export", folder / "run", folder / "bundle"),
    ):
        result = coterie(*words)
        assert result.exit_code == 0, result.output
    return folder / "bundle"


def verdicts(output: str) -> list[Any]:
    return [answer["verdict"]["label"] for answer in json.loads(output)["answers"]]


def test_texts_by_option_file_and_pipe(coterie: Command, text_bundle: Path, tmp_path: Path) -> None:
    good, bad = "a fine thing", "a poor thing"
    (tmp_path / "x.txt").write_text(f"{good}\r\n{bad}\n", encoding="utf-8")
    (tmp_path / "x.csv").write_text(f"number,text\n1,{good}\n2,{bad}\n", encoding="utf-8")
    (tmp_path / "x.json").write_text(json.dumps([good, bad]), encoding="utf-8")
    for words, stdin in (
        (["--text", good, "--text", bad], None),
        (["-i", tmp_path / "x.txt"], None),
        (["-i", tmp_path / "x.csv"], None),
        (["-i", tmp_path / "x.json"], None),
        (["-i", "-"], f"{good}\n{bad}\n"),
    ):
        result = coterie("predict", text_bundle, *words, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        assert verdicts(result.stdout) == ["good", "bad"]


def test_a_text_may_be_longer_than_a_csv_reader_expects(
    coterie: Command, text_bundle: Path, tmp_path: Path
) -> None:
    limit = csv.field_size_limit()
    long = "a fine thing " * (2 * limit // 10)
    (tmp_path / "x.csv").write_text(f'number,text\n1,"{long}"\n2,a poor thing\n', encoding="utf-8")
    result = coterie("predict", text_bundle, "-i", tmp_path / "x.csv", "--json")
    assert result.exit_code == 0, result.output
    known = load(text_bundle, threads=1).predict("verdict", [long, "a poor thing"])
    assert verdicts(result.stdout) == [answer.label for answer in known]
    assert csv.field_size_limit() == limit


def test_a_row_without_its_text_is_named_by_its_line(
    coterie: Command, text_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text('number,text\n1,"a fine\nthing"\n2\n', encoding="utf-8")
    result = coterie("predict", text_bundle, "-i", tmp_path / "x.csv")
    assert result.exit_code == 2
    assert "x.csv, line 4: has no text" in result.stderr


def test_predict_needs_no_torch(text_bundle: Path) -> None:
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'yaml', 'bentoml', 'grpc'):\n    sys.modules[name] = None\n"
        "from coterie.cli.main import run\nrun(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "predict", str(text_bundle), "--text", "a fine thing"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "good" in done.stdout


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a fine thing\n\na poor thing\n", "x.txt, line 2: is empty"),
        ("a fine thing\n  \n", "x.txt, line 2: is empty"),
        ("review\na fine thing\n", "x.csv has no column 'text'"),
        ("", "x.csv has no column 'text'"),
    ],
)
def test_every_answer_has_the_number_of_its_line(
    coterie: Command, text_bundle: Path, tmp_path: Path, content: str, says: str
) -> None:
    name = says.split(maxsplit=1)[0].rstrip(",")
    (tmp_path / name).write_text(content, encoding="utf-8")
    result = coterie("predict", text_bundle, "-i", tmp_path / name)
    assert result.exit_code == 2
    assert says in result.stderr


def test_only_a_line_feed_ends_a_line(coterie: Command, text_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("a fine \u2028 thing\na poor\x0cthing\n".encode())
    result = coterie("predict", text_bundle, "-i", tmp_path / "x.txt", "--json")
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.stdout)["answers"]) == 2
