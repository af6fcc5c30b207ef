"""What a client or an operator does wrong is told, and the server goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from coterie.runtime.manifest import MANIFEST, WEIGHTS
from coterie.runtime.serving import Addresses

from .conftest import Made, coterie_process


@pytest.fixture
def features(made: dict[str, Made]) -> Made:
    return made["features"]


@pytest.fixture
def http(served: dict[str, Addresses]) -> httpx.Client:
    return httpx.Client(base_url=f"http://{served['features'].http}", timeout=30)


def ask_grpc(address: Addresses, model: str, array: np.ndarray[Any, Any], datatype: str) -> Any:
    client = triton_grpc.InferenceServerClient(address.grpc)
    tensor = triton_grpc.InferInput("inputs", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return client.infer(model, [tensor])


def v2(shape: list[int], datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "inputs", "shape": shape, "datatype": datatype, "data": data}]}


def still_answers(features: Made, address: Addresses) -> None:
    result = ask_grpc(address, "mood", features.feeds["inputs"], "FP32")
    np.testing.assert_allclose(result.as_numpy("scores"), features.expected["mood"], rtol=0, atol=1e-4)


def test_an_unknown_task_is_not_found(
    features: Made, http: httpx.Client, served: dict[str, Addresses]
) -> None:
    right = v2([1, 6], "FP32", [0.0] * 6)
    for answer in (
        http.post("/v2/models/moods/infer", json=right),
        http.get("/v2/models/moods"),
        http.post("/predict", json={"task": "moods", "inputs": [[0.0] * 6]}),
        http.post("/ask", json={"tasks": ["moods"], "inputs": [[0.0] * 6]}),
    ):
        assert answer.status_code == 404
        assert "moods" in answer.json()["error"]
        assert "'mood'" in answer.json()["error"]
    with pytest.raises(InferenceServerException, match="mood") as caught:
        ask_grpc(served["features"], "moods", features.feeds["inputs"], "FP32")
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    still_answers(features, served["features"])


@pytest.mark.parametrize(
    ("shape", "datatype", "data"),
    [
        ([1, 5], "FP32", [0.0] * 5),
        ([6], "FP32", [0.0] * 6),
        ([1, 6], "INT64", [0] * 6),
        ([1, 6], "BYTES", ["x"] * 6),
        ([2, 6], "FP32", [0.0] * 6),
    ],
)
def test_a_wrong_shape_or_type_is_a_bad_request(  # noqa: PLR0917 - pytest passes them by name
    features: Made,
    http: httpx.Client,
    served: dict[str, Addresses],
    shape: list[int],
    datatype: str,
    data: list[Any],
) -> None:
    answer = http.post("/v2/models/mood/infer", json=v2(shape, datatype, data))
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert "/" not in answer.json()["error"]
    still_answers(features, served["features"])


def test_a_wrong_shape_or_type_is_an_invalid_argument(features: Made, served: dict[str, Addresses]) -> None:
    for array, datatype in (
        (np.zeros((1, 5), dtype=np.float32), "FP32"),
        (np.zeros((1, 6), dtype=np.int64), "INT64"),
        (np.array([[b"x"] * 6], dtype=object), "BYTES"),
        (np.full((1, 6), np.nan, dtype=np.float32), "FP32"),
    ):
        with pytest.raises(InferenceServerException) as caught:
            ask_grpc(served["features"], "mood", array, datatype)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    still_answers(features, served["features"])


@pytest.mark.parametrize("inputs", [["text"], [[1, 2]], [[None] * 6], [[["a"]]], "x", 3])
def test_plain_json_that_is_wrong_is_a_bad_request(
    features: Made, http: httpx.Client, served: dict[str, Addresses], inputs: Any
) -> None:
    assert http.post("/ask", json={"inputs": inputs}).status_code == 400
    still_answers(features, served["features"])


def truncated(bundle: Path, _: Made) -> None:
    (bundle / WEIGHTS).write_bytes((bundle / WEIGHTS).read_bytes()[:-100])


def altered(bundle: Path, _: Made) -> None:
    content = bytearray((bundle / WEIGHTS).read_bytes())
    content[-5] ^= 1
    (bundle / WEIGHTS).write_bytes(content)


def foreign(bundle: Path, other: Made) -> None:
    shutil.copyfile(other.bundle / WEIGHTS, bundle / WEIGHTS)


def missing(bundle: Path, _: Made) -> None:
    (bundle / WEIGHTS).unlink()


def newer(bundle: Path, _: Made) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    (bundle / MANIFEST).write_text(json.dumps(manifest | {"schema_version": 99}), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (truncated, "is truncated"),
        (altered, "was altered or is of another bundle"),
        (foreign, "weights.safetensors"),
        (missing, "is missing"),
        (newer, "upgrade coterie"),
    ],
)
def test_serve_refuses_a_damaged_bundle(
    made: dict[str, Made], tmp_path: Path, damage: Any, told: str
) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(made["features"].bundle, bundle)
    damage(bundle, made["texts"])
    process = coterie_process("serve", bundle)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert output.startswith("error: ")
    assert told in output
    assert "Traceback" not in output
