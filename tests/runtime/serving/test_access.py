"""Keys: who may ask what, over both transports; and the server's certificates."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import tritonclient.grpc as triton_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from coterie.runtime import ConfigError
from coterie.runtime.serving import running_server
from coterie.runtime.serving._failures import UnauthenticatedError
from coterie.runtime.serving.access._callers import Access
from coterie.runtime.serving.access._keys import add_key, read_keys, revoke_key

from ..handmade import HandMade
from .guarded import Guarded

ROW = [[1.0, 2.0, 3.0, 4.0]]
FEATURES = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": ROW}
ANSWERS = {
    200: grpc.StatusCode.OK,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
}


def infer(stub: Any, model: str, metadata: Any, task: list[str] | None = None) -> grpc.StatusCode:
    request = service_pb2.ModelInferRequest(model_name=model)
    features = request.inputs.add(name="features", datatype="FP32", shape=[1, 4])
    features.contents.fp32_contents.extend(ROW[0])
    if task:
        request.inputs.add(name="task", datatype="BYTES", shape=[len(task)]).contents.bytes_contents.extend(
            [name.encode() for name in task]
        )
        request.inputs.add(name="row", datatype="INT64", shape=[len(task)]).contents.int64_contents.extend(
            [0] * len(task)
        )
    try:
        stub.ModelInfer(request, metadata=metadata)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        (None, "mood", 401),
        ("made up", "mood", 401),
        ("cot_0123456789abcdef_secret", "mood", 401),
        ("all", "price", 200),
        ("some", "mood", 200),
        ("some", "topic", 200),
        ("some", "price", 403),
        ("some", "no-such-task", 403),
        ("some", "there-is-no-such-task", 404),
    ],
)
def test_a_key_may_ask_its_tasks_and_no_others(
    guarded: Guarded, key: str | None, model: str, status: int
) -> None:
    key = guarded.keys.get(key or "", key)
    with guarded.client(key) as client:
        for path, body in (
            (f"/v2/models/{model}/infer", {"inputs": [FEATURES]}),
            ("/predict", {"task": model, "inputs": ROW}),
            ("/ask", {"tasks": ["topic", model][model == "topic" :], "inputs": ROW}),
        ):
            response = client.post(path, json=body)
            assert response.status_code == status, (path, response.text)
            assert (key == guarded.keys["all"] or "price" not in response.text) or model == "price"
            assert (response.headers.get("www-authenticate", "")[:6] == "Bearer") == (status == 401)
        assert client.get(f"/v2/models/{model}").status_code == status
        assert client.get(f"/v2/models/{model}/stats").status_code == status
    for metadata in ([("authorization", f"Bearer {key}")], [("x-api-key", str(key))]):
        assert infer(guarded.stub(), model, metadata if key else []) == ANSWERS[status]


def test_a_key_with_another_secret_is_refused(guarded: Guarded) -> None:
    with guarded.client(guarded.keys["all"][:-1]) as client:
        assert client.post("/v2/models/mood/infer", json={"inputs": [FEATURES]}).status_code == 401
    with guarded.client(None) as client:
        headers = {"X-Api-Key": guarded.keys["all"]}
        response = client.post("/v2/models/mood/infer", json={"inputs": [FEATURES]}, headers=headers)
        assert response.status_code == 200


@pytest.mark.parametrize("datatype", ["BYTES", "INT64"])
def test_all_tasks_that_the_router_is_asked_must_be_the_keys(guarded: Guarded, datatype: str) -> None:
    names = ["topic", "mood", "tags", "price"]
    for tasks, status in ((["mood", "tags"], 200), (["mood", "price"], 403)):
        data: list[Any] = list(tasks) if datatype == "BYTES" else [names.index(task) for task in tasks]
        inputs = [
            FEATURES,
            {"name": "row", "datatype": "INT64", "shape": [2], "data": [0, 0]},
            {"name": "task", "datatype": datatype, "shape": [2], "data": data},
        ]
        with guarded.client(guarded.keys["some"]) as client:
            response = client.post("/v2/models/router/infer", json={"inputs": inputs})
            assert response.status_code == status, response.text
        if datatype == "BYTES":
            metadata = [("x-api-key", guarded.keys["some"])]
            assert infer(guarded.stub(), "router", metadata, tasks) == ANSWERS[status]


def test_a_key_is_shown_its_own_tasks_alone(guarded: Guarded) -> None:
    own = {"mood", "topic", "tags"}
    with guarded.client(guarded.keys["some"]) as client:
        assert {task["name"] for task in client.get("/tasks").json()["tasks"]} == own
        assert {task["name"] for task in client.post("/tasks", json={}).json()["tasks"]} == own
        assert set(client.post("/ask", json={"inputs": ROW}).json()["answers"][0]) == own
        for listed in (
            client.post("/v2/repository/index").json(),
            client.get("/v2/models/stats").json()["model_stats"],
        ):
            assert {entry["name"] for entry in listed} == own | {"router"}
    stub, metadata = guarded.stub(), [("x-api-key", guarded.keys["some"])]
    answer = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(), metadata=metadata)
    assert {model.name for model in answer.models} == own | {"router"}
    answer = stub.ModelStatistics(service_pb2.ModelStatisticsRequest(), metadata=metadata)
    assert {model.name for model in answer.model_stats} == own | {"router"}


def test_a_stream_needs_a_key_too(guarded: Guarded) -> None:
    def asked(key: str) -> list[Any]:
        requests = [service_pb2.ModelInferRequest(model_name="price")]
        return list(guarded.stub().ModelStreamInfer(iter(requests), metadata=[("x-api-key", key)]))

    assert "may not ask 'price'" in asked(guarded.keys["some"])[0].error_message
    assert "needs input" in asked(guarded.keys["all"])[0].error_message
    assert "key" in asked("none")[0].error_message


def test_health_is_open_and_metrics_are_for_keys_that_may(guarded: Guarded) -> None:
    with guarded.client(None) as client:
        for path in ("/livez", "/readyz", "/healthz", "/v2/health/live", "/v2/health/ready", "/docs.json"):
            assert client.get(path).status_code == 200, path
        for path in ("/metrics", "/tasks", "/versions", "/v2", "/v2/models/mood"):
            assert client.get(path).status_code == 401, path
    for name, status in (("all", 200), ("some", 403)):
        with guarded.client(guarded.keys[name]) as client:
            assert client.get("/metrics").status_code == status
    channel = grpc.insecure_channel(guarded.at.grpc or "")
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert guarded.stub().ServerReady(service_pb2.ServerReadyRequest()).ready
    with pytest.raises(grpc.RpcError) as refused:
        guarded.stub().ServerMetadata(service_pb2.ServerMetadataRequest())
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_tritons_client_sends_a_key_as_a_header(guarded: Guarded) -> None:
    client = triton_grpc.InferenceServerClient(guarded.at.grpc or "")
    assert client.get_model_metadata("mood", headers={"authorization": f"Bearer {guarded.keys['some']}"})
    client.close()


def test_a_key_that_is_made_or_revoked_counts_within_seconds(guarded: Guarded) -> None:
    new = add_key(guarded.file, "new")
    with guarded.client(new) as client:
        _until(lambda: client.get("/tasks").status_code == 200)
        revoke_key(guarded.file, "new")
        _until(lambda: client.get("/tasks").status_code == 401)
    with guarded.client(guarded.keys["all"]) as client:
        assert client.get("/tasks").status_code == 200


def test_a_file_that_breaks_leaves_the_keys_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "one")
    access = Access(file)
    for content in (b"{", b'{"keys": [{"name": "x"}]}', None):
        access._next_look = 0
        file.unlink() if content is None else file.write_bytes(content)
        assert access.caller("", key).name == "one"
    file.write_text('{"keys": []}')
    access._next_look = 0
    with pytest.raises(UnauthenticatedError):
        access.caller("", key)


def test_the_file_of_keys_holds_no_key_and_is_its_owners(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "one", tasks=["a*"])
    assert key.split("_", 2)[2] not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    (entry,) = read_keys(file)
    assert (entry.name, entry.tasks, entry.metrics) == ("one", ("a*",), False)
    with pytest.raises(ConfigError, match="already"):
        add_key(file, "one")
    with pytest.raises(ConfigError, match="there is one"):
        revoke_key(file, "two")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not JSON"),
        ('{"keys": [{"name": "a", "id": "x", "sha256": "y"}]}', "keys.0.id"),
        ('{"keys": {}, "keys": {}}', "not JSON"),
        ('{"other": 1}', "other"),
    ],
)
def test_a_wrong_file_of_keys_is_refused(features: HandMade, tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=says), running_server(features.path, keys=file):
        pass


def _until(holds: Any) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)
