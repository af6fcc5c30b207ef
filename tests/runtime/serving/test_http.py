"""The protocol over HTTP, where it is more than Triton's client asks for."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from coterie.runtime import Engine, load
from coterie.runtime.errors import OverloadedError
from coterie.runtime.serving import Addresses
from coterie.runtime.serving.http._front import unambiguous
from coterie.runtime.serving.http._infer import is_question, model_of
from coterie.runtime.serving.http._receiving import Receiving
from coterie.runtime.serving.http._urgency import urgency_of

from ..handmade import HandMade

INFER = "/v2/models/topic/infer"
FEATURES = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def client(server: Addresses) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{server.http}") as client:
        yield client


@pytest.fixture(scope="module")
def local(features: HandMade) -> Engine:
    return load(features.path, threads=1)


def test_json_may_be_nested_and_comes_back_flat(client: httpx.Client, local: Engine) -> None:
    expected = local.predict("topic", [[1, 2, 3, 4]])
    for data in ([1, 2, 3, 4], [[1, 2, 3, 4]]):
        response = client.post(INFER, json={"inputs": [FEATURES | {"data": data}], "id": "a"})
        assert response.status_code == 200
        answer = response.json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("topic", "1", "a")
        outputs = {output["name"]: output for output in answer["outputs"]}
        assert outputs["scores"]["data"] == expected.scores[0].tolist()
        assert outputs["label"] == {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["arts"]}


def test_each_output_may_be_binary_or_json(client: httpx.Client, local: Engine) -> None:
    outputs = [{"name": "label"}, {"name": "scores", "parameters": {"binary_data": True}}]
    response = client.post(INFER, json={"inputs": [FEATURES], "outputs": outputs})
    length = int(response.headers["inference-header-content-length"])
    head = json.loads(response.content[:length])
    assert [output["name"] for output in head["outputs"]] == ["label", "scores"]
    assert head["outputs"][0]["data"] == ["arts"]
    scores = np.frombuffer(response.content[length:], dtype="<f4")
    np.testing.assert_array_equal(scores, local.predict("topic", [[1, 2, 3, 4]]).scores[0])


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_packed_body_is_unpacked_up_to_the_limit(client: httpx.Client, encoding: str, pack: Any) -> None:
    headers = {"content-encoding": encoding}
    body = json.dumps({"inputs": [FEATURES]}).encode()
    assert client.post(INFER, content=pack(body), headers=headers).status_code == 200
    assert client.post(INFER, content=pack(body)[:-5], headers=headers).status_code == 400
    assert client.post(INFER, content=b"nonsense", headers=headers).status_code == 400
    bomb = pack(b" " * 10_000_000)
    assert len(bomb) < 20_000
    assert client.post(INFER, content=bomb, headers=headers).status_code == 413


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v2/models/infer", None),
        ("/v2/models//infer", None),
        ("/v2/models/infer/infer", ("infer", "")),
        ("/v2/models/a/b/infer", ("a/b", "")),
        ("/v2/models/a/versions/3/infer", ("a", "3")),
        ("/v2/models/a/versions//infer", ("a/versions/", "")),
    ],
)
def test_which_addresses_are_questions_and_of_which_model(path: str, model: tuple[str, str] | None) -> None:
    assert (model_of(path) if is_question(path) else None) == model


def test_a_packed_body_of_several_members_is_read_to_its_end(client: httpx.Client) -> None:
    body, headers = json.dumps({"inputs": [FEATURES]}).encode(), {"content-encoding": "gzip"}
    members = gzip.compress(body[:20]) + gzip.compress(body[20:])
    assert client.post(INFER, content=members, headers=headers).status_code == 200
    twice = client.post(INFER, content=gzip.compress(body) * 2, headers=headers)
    assert (twice.status_code, "not JSON" in twice.json()["error"]) == (400, True)
    bomb = gzip.compress(b" " * 900_000) * 30
    assert client.post(INFER, content=bomb, headers=headers).status_code == 413
    after = client.post(INFER, content=zlib.compress(body) + b"more", headers={"content-encoding": "deflate"})
    assert after.status_code == 400


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 100_000, "nested too deeply|not JSON"),
        (b"[]", "not a JSON object"),
        ({}, "'inputs'"),
        ({"inputs": {}}, "'inputs'"),
        ({"inputs": [1]}, "'inputs'"),
        ({"inputs": []}, "needs input 'features'"),
        ({"inputs": [{"datatype": "FP32"}]}, "'name'"),
        ({"inputs": [FEATURES | {"name": 3}]}, "'name'"),
        ({"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4]}]}, "neither"),
        ({"inputs": [FEATURES | {"shape": [4]}]}, "expected \\[R, 4\\]"),
        ({"inputs": [FEATURES | {"shape": [], "data": [1]}]}, "expected \\[R, 4\\]"),
        ({"inputs": [FEATURES | {"shape": [2, 4]}]}, "do not make the shape"),
        ({"inputs": [FEATURES | {"data": [1, 2, 3, "4"]}]}, "not FP32"),
        (b'{"inputs": [{"name": "features", "datatype": "FP32", "shape": [1], "data": [NaN]}]}', "NaN"),
        ({"inputs": [FEATURES | {"data": [1e300, 0, 0, 0]}]}, "not a finite"),
        ({"inputs": [FEATURES | {"datatype": "FP64"}]}, "must be FP32"),
        ({"inputs": [FEATURES | {"datatype": ["FP32"]}]}, "none of"),
        ({"inputs": [FEATURES | {"parameters": 5}]}, "'parameters'"),
        ({"inputs": [FEATURES | {"parameters": {"shared_memory_region": "x"}}]}, "shared_memory_region"),
        ({"inputs": [FEATURES | {"parameters": {"binary_data_size": 16}}]}, "binary_data_size"),
        ({"inputs": [FEATURES | {"parameters": {"binary_data_size": -1}}]}, "binary_data_size"),
        ({"inputs": [FEATURES], "outputs": [{"name": "logits"}]}, "no output 'logits'"),
        ({"inputs": [FEATURES], "outputs": [{"name": "scores", "parameters": [1]}]}, "'parameters'"),
        (
            {"inputs": [FEATURES], "outputs": [{"name": "label", "parameters": {"classification": 2}}]},
            "no classes to choose from",
        ),
        *(
            (
                {"inputs": [FEATURES], "outputs": [{"name": "scores", "parameters": {"classification": n}}]},
                "1 up",
            )
            for n in (-1, 1.5, True, "2")
        ),
        ({"inputs": [FEATURES], "outputs": 3}, "'outputs'"),
        ({"inputs": [FEATURES], "id": 7}, "'id'"),
        ({"inputs": [FEATURES], "parameters": "x"}, "'parameters'"),
        *(
            ({"inputs": [FEATURES], "parameters": {"priority": n}}, "1, which goes first")
            for n in (4, -1, "1")
        ),
    ],
)
def test_a_body_that_is_no_question_is_a_400(client: httpx.Client, body: Any, says: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(INFER, content=content)
    assert response.status_code == 400, response.text
    assert set(response.json()) == {"error"}
    assert _matches(says, response.json()["error"])


@pytest.mark.parametrize(
    "length", ["-1", "x", "9999999", "1e3", "\u0663".encode().decode("latin-1"), "0" * 5000]
)
def test_a_wrong_header_length_is_a_400(client: httpx.Client, length: str) -> None:
    headers = {b"Inference-Header-Content-Length": length.encode("latin-1")}
    response = client.post(INFER, json={"inputs": [FEATURES]}, headers=headers)
    assert response.status_code == 400


def test_bytes_that_no_tensor_takes_are_refused(client: httpx.Client) -> None:
    head = json.dumps({"inputs": [FEATURES]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    response = client.post(INFER, content=head + b"\0", headers=headers)
    assert response.status_code == 400
    assert "1 bytes more" in response.json()["error"]


def test_a_body_is_counted_as_it_arrives(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 16_384

    for path in (INFER, "/predict"):
        declared = client.post(path, content=b" " * 300_000, headers={"content-type": "application/json"})
        chunked = client.post(path, content=endless(), headers={"content-type": "application/json"})
        for response in (declared, chunked):
            assert response.status_code == 413
            assert "262144" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/topic", 200),
        ("GET", "/v2/models/topic/versions/1", 200),
        ("GET", "/v2/models/topic/versions/1/ready", 200),
        ("GET", "/v2/models/router/ready", 200),
        ("GET", "/v2/models/topic/config", 200),
        ("GET", "/v2/models/topic/versions/1/config", 200),
        ("GET", "/v2/models/topic/stats", 200),
        ("GET", "/v2/models/topic/versions/1/stats", 200),
        ("GET", "/v2/models/stats", 200),
        ("GET", "/v2/models/topik/config", 404),
        ("GET", "/v2/models/topik/stats", 404),
        ("GET", "/v2/models/topic/versions/2/stats", 404),
        ("POST", "/v2/repository/models/topic/load", 403),
        ("POST", "/v2/repository/models/topic/unload", 403),
        ("GET", "/v2/repository/index", 404),
        ("GET", "/v2/models/topik", 404),
        ("GET", "/v2/models/topic/versions/2", 404),
        ("GET", "/v2/models/topik/ready", 404),
        ("GET", "/v2/nothing", 404),
        ("POST", "/v2/models/topik/infer", 404),
        ("GET", "/v2/models/topic/infer", 405),
        ("POST", "/v2/health/ready", 405),
    ],
)
def test_every_address_answers_with_json(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status, response.text
    assert ("error" in response.json()) == (status != 200)


@pytest.mark.parametrize(("body", "status"), [(b"", 200), (b"{}", 200), (b'{"ready":1}', 400), (b"[]", 400)])
def test_the_index_of_the_repository_is_asked_with_a_body_or_without(
    client: httpx.Client, body: bytes, status: int
) -> None:
    response = client.post("/v2/repository/index", content=body)
    assert response.status_code == status
    if status == 200:
        assert {"name": "topic", "version": "1", "state": "READY", "reason": ""} in response.json()


def _matches(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text) is not None


def test_a_timeout_of_any_length_is_a_timeout(client: httpx.Client) -> None:
    body = {"inputs": [FEATURES], "parameters": {"timeout": int("9" * 400)}}
    assert client.post(INFER, json=body).status_code == 200


@pytest.mark.parametrize("encoding", ["GZIP", "Gzip"])
def test_the_name_of_an_encoding_is_one_in_any_case(client: httpx.Client, encoding: str) -> None:
    body = gzip.compress(json.dumps({"inputs": [FEATURES]}).encode())
    assert client.post(INFER, content=body, headers={"content-encoding": encoding}).status_code == 200


def test_what_a_message_quotes_is_cut(client: httpx.Client) -> None:
    response = client.post(INFER, json={"inputs": [FEATURES | {"name": "x" * 100_000}]})
    assert response.status_code == 400
    assert len(response.content) < 3000


@pytest.mark.parametrize(
    ("body", "head", "wanted"),
    [
        (b'{"inputs": []}', None, (2, None)),
        (b'{"parameters": {"priority": 1, "timeout": 20000}, "inputs": []}', None, (1, 0.02)),
        (b'{"inputs": [{"data": "' + b"x" * 50_000 + b'"}], "parameters": {"priority": 3}}', None, (3, None)),
        (b'{"inputs": [{"data": ["\\"priority\\": 1"]}]}', None, (2, None)),
        (b'{"inputs": []}"timeout": 5', "14", (2, None)),
        (b'{"parameters": {"priority": 99999}}', None, (3, None)),
        (b"", "nonsense", (2, None)),
    ],
)
def test_how_urgent_a_question_is_can_be_seen_before_it_is_read(
    body: bytes, head: str | None, wanted: tuple[int, float | None]
) -> None:
    assert urgency_of(body, head) == wanted


def test_bodies_that_stop_in_the_middle_fill_no_memory() -> None:
    receiving = Receiving(100)
    with receiving.body() as one, receiving.body() as two:
        one.add(90)
        with pytest.raises(OverloadedError):
            two.add(20)
    assert receiving.nbytes == 0
    with receiving.body() as alone:
        alone.add(500)  # what a server takes at all it takes alone
    assert receiving.nbytes == 0


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("/v2/models/a", "/v2/models/a"),
        ("/v2/models/a/versions/1", "/v2/models/a/versions/1/versions/4"),
        ("/v2/models/a/versions/1/config", "/v2/models/a/versions/1/versions/4/config"),
        ("/v2/models/a/versions/2/config", "/v2/models/a/versions/2/config"),
        ("/v2/models/b/stats", "/v2/models/b/stats/versions/4"),
        ("/v2/models/b/stats/stats", "/v2/models/b/stats/versions/4/stats"),
    ],
)
def test_a_name_that_looks_as_if_it_said_a_version_is_a_name(path: str, wanted: str) -> None:
    models = SimpleNamespace(odd={"a/versions/1", "b/stats"}, current=SimpleNamespace(number="4"))
    assert unambiguous(path, models) == wanted  # type: ignore[arg-type]
    assert model_of("/v2/models/a/versions/1/infer", models.odd) == ("a/versions/1", "")
    assert model_of("/v2/models/a/versions/1/versions/4/infer", models.odd) == ("a/versions/1", "4")
