"""Bundles of several inputs: how they are asked, and what is refused."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from typer.testing import CliRunner

from coterie.cli.main import app
from coterie.runtime import Engine, load
from coterie.runtime.batching import Batcher
from coterie.runtime.engine._asked import Asked
from coterie.runtime.errors import InvalidInputError
from coterie.runtime.serving import Addresses

from .conftest import Made, coterie

ROWS: list[dict[str, Any]] = [
    {"offer": "a lovely bright flat", "numbers": [0.5, -1.0]},
    {"offer": "damp", "numbers": [0.5, 1.0]},
    {"offer": "damp", "numbers": [-2.0, 1.0]},
]
COLUMNS = {name: [row[name] for row in ROWS] for name in ("offer", "numbers")}


@pytest.fixture(scope="module")
def listings(made: dict[str, Made]) -> Made:
    return made["listings"]


@pytest.fixture(scope="module")
def address(served: dict[str, Addresses]) -> Addresses:
    return served["listings"]


def test_rows_and_columns_say_the_same(listings: Made) -> None:
    by_row, by_column = (listings.engine.predict("mood", inputs).scores for inputs in (ROWS, COLUMNS))
    np.testing.assert_array_equal(by_row, by_column)
    one = {"offer": "damp", "numbers": [[0.5, 1.0]]}
    np.testing.assert_allclose(listings.engine.predict("mood", one).scores, by_row[1:2], atol=1e-5)
    assert len(listings.engine.predict("mood", [])) == 0


def test_every_input_tells_on_the_task_that_needs_it(listings: Made) -> None:
    bargain = listings.engine.predict("bargain", COLUMNS).scores
    assert not np.allclose(bargain[1], bargain[2])  # The numbers differ,
    other = listings.engine.predict("bargain", COLUMNS | {"offer": ["lovely", "damp", "lovely quiet"]}).scores
    assert not np.allclose(bargain[2], other[2])  # or the text.


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"offer": ["damp"]}, "the inputs lack 'numbers': give each of 'offer', 'numbers'"),
        (COLUMNS | {"size": [1]}, "the model has no input 'size': its inputs are 'offer', 'numbers'"),
        ([ROWS[0], {"offer": "damp"}], "the inputs of row 1 lack 'numbers'"),
        ([ROWS[0] | {"size": 1}], "the model has no input 'size' of row 0"),
        (COLUMNS | {"offer": ["damp"]}, "differ in their numbers of rows .'offer' has 1, 'numbers' has 3."),
        (COLUMNS | {"numbers": ["a", "b", "c"]}, "input 'numbers' takes numbers, not text"),
        (COLUMNS | {"numbers": [[1.0]] * 3}, "input 'numbers' has shape .3, 1., expected .R, 2."),
        (COLUMNS | {"offer": ["damp", "", "dark"]}, "text 1 is empty"),
        (COLUMNS | {"offer": [[999]] * 3}, "input 'offer' has a token id outside"),
        (["damp"], "the model has the inputs 'offer', 'numbers': give each of them by its name"),
    ],
)
def test_what_is_no_set_of_inputs_is_refused(
    listings: Made, address: Addresses, inputs: Any, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        listings.engine.predict("mood", inputs)
    if isinstance(inputs, list):
        body = {"task": "mood", "inputs": inputs}
        answer = httpx.post(f"http://{address.http}/predict", json=body, timeout=30)
        assert answer.status_code == 400
        assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"offer": 2}, "model 'mood' needs input 'numbers'"),
        ({"offer": 2, "numbers": 3}, "differ in their numbers of rows"),
        ({"offer": 2, "text": 2, "numbers": 2}, "model 'mood' has no input 'text': it has offer, numbers"),
    ],
)
def test_tensors_that_do_not_belong_together_are_refused(
    address: Addresses, rows: dict[str, int], message: str
) -> None:
    tensors = []
    for name, count in rows.items():
        tensors.append(
            {"name": name, "datatype": "FP32", "shape": [count, 2], "data": [0.5] * 2 * count}
            if name == "numbers"
            else {"name": name, "datatype": "BYTES", "shape": [count], "data": ["damp"] * count}
        )
    answer = httpx.post(f"http://{address.http}/v2/models/mood/infer", json={"inputs": tensors}, timeout=30)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_metadata_names_every_input(address: Addresses) -> None:
    told = httpx.get(f"http://{address.http}/v2/models/router").json()["inputs"]
    assert [(each["name"], each["datatype"], each["shape"]) for each in told] == [
        ("offer", "BYTES", [-1]),
        ("numbers", "FP32", [-1, 2]),
        ("row", "INT64", [-1]),
        ("task", "BYTES", [-1]),
    ]
    config = triton_grpc.InferenceServerClient(address.grpc).get_model_config("mood", as_json=True)["config"]
    assert [each["name"] for each in config["input"]] == ["offer", "numbers"]
    described = httpx.get(f"http://{address.http}/tasks").json()["inputs"]
    assert described == [
        {"name": "offer", "text": True, "shape": []},
        {"name": "numbers", "text": False, "shape": [2]},
    ]


def test_requests_are_run_together_and_equal_rows_once(
    listings: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["lovely bright flat", "damp dark", "loud damp flat", "damp dark", "damp dark"]
    asked = [
        {"offer": text, "numbers": [[0.5, rent]]} for text, rent in zip(texts, (0, 2, 1, 1, 1), strict=True)
    ]
    alone = [listings.engine.predict("bargain", row).scores[0] for row in asked]
    runs: list[tuple[int, int]] = []
    run = Engine.run

    def slow(engine: Engine, questions: Asked, *more: Any) -> Any:
        runs.append((len(questions), questions.distinct))
        time.sleep(0.2)  # What comes meanwhile is run together after it.
        return run(engine, questions, *more)

    monkeypatch.setattr(Engine, "run", slow)

    async def ask() -> list[Any]:
        batcher = Batcher(load(listings.bundle, threads=1))
        answers = await asyncio.gather(*(batcher.predict("bargain", row) for row in asked))
        await batcher.close()
        return [answer.scores[0] for answer in answers]

    np.testing.assert_allclose(asyncio.run(ask()), alone, atol=1e-5)
    assert sum(questions for questions, _ in runs) == 5
    assert sum(inputs for _, inputs in runs) == 4  # One row came twice.
    assert len(runs) <= 2


def test_predict_and_diff_read_objects(listings: Made, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps({"inputs": ROWS}))
    answers = json.loads(coterie("predict", listings.bundle, "--input", file, "--json"))["answers"]
    scores = listings.engine.predict("mood", ROWS)
    assert [answer["mood"]["label"] for answer in answers] == [each.label for each in scores]
    assert "same" in coterie("diff", listings.bundle, listings.bundle, "--input", file)
    (tmp_path / "rows.csv").write_text("damp,0.5,1\n")
    refused = CliRunner().invoke(
        app, ["predict", str(listings.bundle), "--input", str(tmp_path / "rows.csv")]
    )
    assert refused.exit_code != 0


def test_inspect_names_the_inputs(listings: Made) -> None:
    for folder in (listings.bundle, listings.run_folder):
        assert "over offer (text) and numbers (float32 [n, 2])" in " ".join(
            coterie("inspect", folder).split()
        )
        told = json.loads(coterie("inspect", folder, "--json"))["inputs"]
        assert [(each["name"], each["text"]) for each in told] == [("offer", True), ("numbers", False)]
