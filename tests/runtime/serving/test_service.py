"""BentoML's typed endpoints, health, metrics and OpenAPI page."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from coterie.runtime import Engine, load
from coterie.runtime.serving import Addresses

from ..handmade import HandMade

ROW = [1.0, 2.0, 3.0, 4.0]


@pytest.fixture(scope="module")
def client(server: Addresses) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{server.http}") as client:
        yield client


@pytest.fixture(scope="module")
def local(features: HandMade) -> Engine:
    return load(features.path, threads=1)


def expected(engine: Engine, task: str, inputs: Any) -> list[dict[str, Any]]:
    return [
        {
            "label": list(result.label) if isinstance(result.label, tuple) else result.label,
            "probabilities": result.probabilities,
            "scores": result.scores,
        }
        for result in engine.predict(task, inputs)
    ]


def test_one_task_is_predicted_for_each_input(
    client: httpx.Client, local: Engine, features: HandMade
) -> None:
    inputs = features.inputs(3).tolist()
    for name in features.names:
        response = client.post("/predict", json={"task": name, "inputs": inputs})
        assert response.status_code == 200, response.text
        assert response.json() == {"task": name, "answers": expected(local, name, inputs)}


def test_many_tasks_are_asked_about_each_input(
    client: httpx.Client, local: Engine, features: HandMade
) -> None:
    inputs = features.inputs(2).tolist()
    for tasks in (None, ["price", "topic"]):
        body = {"inputs": inputs} if tasks is None else {"inputs": inputs, "tasks": tasks}
        answers = client.post("/ask", json=body).json()["answers"]
        assert len(answers) == 2
        for row, answer in enumerate(answers):
            assert list(answer) == (tasks or list(features.names))
            for name, one in answer.items():
                assert one == expected(local, name, inputs)[row]


def test_texts_are_predicted(text_server: Addresses, texts: HandMade) -> None:
    inputs = texts.inputs(2)
    url = f"http://{text_server.http}"
    answer = httpx.post(f"{url}/predict", json={"task": "mood", "inputs": inputs}).json()
    assert answer["answers"] == expected(load(texts.path, threads=1), "mood", inputs)
    assert httpx.get(f"{url}/tasks").json()["text"] is True
    empty = httpx.post(f"{url}/predict", json={"task": "mood", "inputs": [""]})
    assert (empty.status_code, "text 0" in empty.json()["error"]) == (400, True)


def test_a_version_can_be_named(client: httpx.Client) -> None:
    for path, body in (("/predict", {"task": "topic", "inputs": [ROW]}), ("/ask", {"inputs": [ROW]})):
        assert client.post(path, json=body | {"version": "1"}).status_code == 200
        unknown = client.post(path, json=body | {"version": "7"})
        assert (unknown.status_code, "'7' is not loaded" in unknown.json()["error"]) == (404, True)


def test_texts_are_taken_up_to_a_length_by_every_transport(text_server: Addresses) -> None:
    url, long = f"http://{text_server.http}", "book " * 20_001
    tensor = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["good", long]}
    for path, body in (
        ("/predict", {"task": "mood", "inputs": ["good", long]}),
        ("/ask", {"inputs": [long]}),
        ("/v2/models/mood/infer", {"inputs": [tensor]}),
    ):
        response = httpx.post(f"{url}{path}", json=body)
        assert response.status_code == 413, path
        assert "100000" in response.json()["error"]
    request = service_pb2.ModelInferRequest(model_name="mood")
    request.inputs.add(name="text", datatype="BYTES", shape=[1]).contents.bytes_contents.append(long.encode())
    with grpc.insecure_channel(text_server.grpc or "") as channel, pytest.raises(grpc.RpcError) as refused:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("path", ["/ask", "/predict"])
def test_a_question_is_given_up_with_its_client(text_server: Addresses, path: str) -> None:
    # So much to read that the client is gone before it is read.
    body = {"inputs": ["a very good book " * 200] * 2000} | ({"task": "mood"} if path == "/predict" else {})
    url, content = (
        f"http://{text_server.http}",
        json.dumps(body | ({"tasks": ["mood"]} if path == "/ask" else {})),
    )
    before = _cancelled(url)
    host, _, port = text_server.http.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall((head + content).encode())
    deadline = time.monotonic() + 20
    while _cancelled(url) == before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _cancelled(url: str) -> float:
    pattern = r'coterie_requests_total\{[^}]*outcome="cancelled",transport="json"\} (\S+)'
    return sum(map(float, re.findall(pattern, httpx.get(f"{url}/metrics").text)))


def test_tasks_are_listed_with_their_labels(client: httpx.Client, features: HandMade) -> None:
    listed = client.get("/tasks").json()
    assert client.post("/tasks", json={}).json() == listed
    assert [task["name"] for task in listed["tasks"]] == list(features.names)
    assert listed["tasks"][1] == {
        "name": "mood",
        "kind": "classification",
        "labels": ["negative", "positive"],
    }
    assert (listed["text"], listed["shape"]) == (False, [4])


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/predict", {"task": "topik", "inputs": [ROW]}, 404, "did you mean 'topic'"),
        ("/predict", {"task": "topic", "inputs": [[1.0]]}, 400, "expected [R, 4]"),
        ("/predict", {"task": "topic", "inputs": ["text"]}, 400, "takes numbers"),
        ("/predict", {"task": "topic", "inputs": [[1, 2, 3, None]]}, 400, "mixed objects"),
        ("/predict", {"task": "topic", "inputs": [{}]}, 400, "input 'features'"),
        ("/predict", {"task": "topic"}, 400, "inputs is missing"),
        ("/predict", {"task": 3, "inputs": [ROW]}, 400, "task should be a valid string"),
        ("/predict", [], 400, "the body should be an object"),
        ("/predict", {"task": "topic", "inputs": [ROW] * 65}, 413, "split it"),
        ("/ask", {"inputs": [ROW], "tasks": ["topic", "topik"]}, 404, "did you mean"),
        ("/ask", {"inputs": [ROW], "tasks": ["topic", "topic"]}, 400, "each task once"),
        ("/ask", {"inputs": [ROW], "tasks": []}, 400, "each task once"),
        ("/ask", {"inputs": [ROW] * 17}, 413, "68 rows"),
    ],
)
def test_a_clients_mistake_is_told_and_the_server_goes_on(
    client: httpx.Client, path: str, body: Any, status: int, says: str
) -> None:
    response = client.post(path, json=body)
    assert response.status_code == status, response.text
    assert says in response.json()["error"]
    assert client.post("/predict", json={"task": "topic", "inputs": [ROW]}).status_code == 200


@pytest.mark.parametrize("content", [b"{nonsense", b"\xff\xfe", b"[" * 100_000])
def test_malformed_json_is_a_400(client: httpx.Client, content: bytes) -> None:
    response = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "application/vnd.bentoml+pickle", "application/x-www-form-urlencoded"]
)
def test_other_kinds_of_body_are_a_415(client: httpx.Client, kind: str) -> None:
    response = client.post("/predict", content=b"x", headers={"content-type": kind})
    assert response.status_code == 415
    assert "application/json" in response.json()["error"]


def test_compressed_bodies_are_a_415_where_they_would_not_be_read(client: httpx.Client) -> None:
    packed = gzip.compress(json.dumps({"task": "topic", "inputs": [ROW]}).encode())
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    response = client.post("/predict", content=packed, headers=headers)
    assert response.status_code == 415
    assert "as it is" in response.json()["error"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/predict", 405)])
def test_what_is_not_there_is_told_in_json(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert (response.status_code, list(response.json())) == (status, ["error"])
    assert response.headers["x-request-id"]
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


def test_health_is_bentomls(client: httpx.Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_what_clients_make_up_makes_no_new_series(client: httpx.Client) -> None:
    client.post("/predict", json={"task": "topic", "inputs": [ROW]})
    client.post("/predict", json={"task": "made-up-0", "inputs": [ROW]})
    client.post("/v2/models/made-up-0/infer", json={"inputs": []})
    before = _series(client)
    assert any('model="topic",outcome="ok",transport="json"' in line for line in before)
    assert any('model="unknown",outcome="not_found",transport="http"' in line for line in before)
    for index in range(20):
        client.get(f"/made-up-{index}")
        client.post(f"/v2/models/made-up-{index}/infer", json={"inputs": []})
        client.post("/predict", json={"task": f"made-up-{index}", "inputs": [ROW]})
    assert _series(client) == before


def test_the_openapi_page_has_the_typed_endpoints_with_examples(client: httpx.Client) -> None:
    told = client.get("/docs.json").json()
    for path in ("/predict", "/ask", "/tasks"):
        assert "post" in told["paths"][path]
    for path in ("/tasks", "/versions", "/livez", "/readyz", "/metrics"):
        assert "200" in told["paths"][path]["get"]["responses"]
        assert client.get(path).status_code == 200
    properties = told["components"]["schemas"]["predict__Input"]["properties"]
    assert properties["task"]["examples"] == ["sentiment"]
    assert properties["inputs"]["examples"]


def test_the_page_loads_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    loaded = re.findall(r'(?:src|href)="(?!data:)([^"]+)"', page.text)
    assert len(loaded) == 2
    for address in loaded:
        assert client.get(f"/{address.removeprefix('./')}").status_code == 200


def test_the_examples_of_the_page_are_answered(client: httpx.Client, text_server: Addresses) -> None:
    with httpx.Client(base_url=f"http://{text_server.http}") as texts:
        for server in (client, texts):
            paths = server.get("/docs.json").json()["paths"]
            for path in ("/predict", "/ask"):
                example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
                assert server.post(path, json=example).status_code == 200


def _series(client: httpx.Client) -> set[str]:
    lines = client.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0] for line in lines if not line.startswith("#")}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"inputs": [[1, 2, 3, 4]]}', "task is missing"),
        (b"{}", "task is missing; inputs is missing"),
        (b"[1]", "the body should be an object"),
        (b"{", "the body: Invalid JSON"),
        (b'{"task": "topic", "inputs": 3}', "inputs should be a valid array"),
    ],
)
def test_a_body_that_is_not_what_an_address_takes_is_told_in_a_sentence(
    client: httpx.Client, body: bytes, says: str
) -> None:
    response = client.post("/predict", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert set(response.json()) == {"error"}
    assert response.json()["error"].startswith(says)
    assert "the page at /" in response.json()["error"]
