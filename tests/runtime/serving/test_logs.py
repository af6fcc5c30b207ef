"""A line for each question, with an id that the answer carries too."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import socket
import sys
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from coterie.runtime.engine._prediction import Timing
from coterie.runtime.serving.http._calls import CallMiddleware
from coterie.runtime.serving.observing._calls import Calls, Done
from coterie.runtime.serving.observing._logs import AccessLog, JsonFormatter

from .watched import ROW, Watched, eventually


def line_of(watched: Watched, name: str) -> dict[str, Any]:
    """Return the line of a call, by its id."""
    found = eventually(lambda: [line for line in watched.lines() if line.get("id") == name])
    assert len(found) == 1, found
    return found[0]


def test_a_line_says_what_was_asked_and_what_became_of_it(watched: Watched) -> None:
    answer = watched.predict("tags", **{"x-request-id": "line-1"})
    assert answer.headers["x-request-id"] == "line-1"
    line = line_of(watched, "line-1")
    assert line["ms"] >= line["queue_ms"] + line["run_ms"] > 0
    assert (line["status"], line["transport"], line["model"], line["version"]) == ("200", "json", "tags", "1")
    assert (line["outcome"], line["questions"]) == ("ok", 1)
    assert line["batch"] >= 1


def test_what_a_client_sent_wrongly_is_not_in_the_log(watched: Watched) -> None:
    bodies = [b'{"inputs": ["my secret"]}', b'{"task": "topic", "inputs": "my secret"}', b'{"my secret']
    for number, body in enumerate(bodies):
        headers = {"content-type": "application/json", "x-request-id": f"mistake-{number}"}
        assert httpx.post(f"{watched.http}/predict", content=body, headers=headers).status_code == 400
    assert line_of(watched, f"mistake-{number}")["status"] == "400"
    log = watched.log.read_text(encoding="utf-8")
    assert "my secret" not in log
    assert "Exception on" not in log


def test_a_call_without_an_id_is_given_one(watched: Watched) -> None:
    first, second = (watched.predict().headers["x-request-id"] for _ in range(2))
    assert first != second
    assert line_of(watched, first)["model"] == "topic"


def test_a_questions_own_id_is_the_calls(watched: Watched) -> None:
    body: dict[str, Any] = {
        "id": "own-7",
        "inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": ROW}],
    }
    answer = httpx.post(f"{watched.http}/v2/models/topic/infer", json=body)
    assert (answer.headers["x-request-id"], answer.json()["id"]) == ("own-7", "own-7")
    assert line_of(watched, "own-7")["transport"] == "http"


def test_what_is_wrong_has_a_line_with_the_id_that_the_client_has(watched: Watched) -> None:
    unknown = watched.predict("topik", **{"x-request-id": "wrong-1"})
    assert (unknown.status_code, unknown.headers["x-request-id"]) == (404, "wrong-1")
    assert line_of(watched, "wrong-1")["outcome"] == "not_found"
    nowhere = httpx.get(f"{watched.http}/v2/nowhere")
    line = line_of(watched, nowhere.headers["x-request-id"])
    assert (line["status"], line["request"]) == ("404", "GET /v2/nowhere")


def test_grpc_has_ids_in_its_metadata_and_lines_too(watched: Watched) -> None:
    request = service_pb2.ModelInferRequest(model_name="mood")
    request.inputs.add(name="features", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.array([ROW], dtype=np.float32).tobytes())
    with grpc.insecure_channel(watched.grpc) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        _, call = stub.ModelInfer.with_call(request, metadata=[("x-request-id", "g-1")])
        assert dict(call.trailing_metadata())["x-request-id"] == "g-1"
        request.model_name = "moody"
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, metadata=[("x-request-id", "g-2")])
        assert dict(caught.value.trailing_metadata())["x-request-id"] == "g-2"
    assert line_of(watched, "g-1")["status"] == "OK"
    assert (line_of(watched, "g-2")["status"], line_of(watched, "g-2")["model"]) == ("NOT_FOUND", "unknown")


def test_requests_that_follow_each_other_at_once_have_ids_of_their_own(watched: Watched) -> None:
    host, port = watched.http.removeprefix("http://").split(":")
    request = b"GET /v2/pipelined HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(3 * request)
        text = b""
        while text.count(b'"error"') < 3:
            text += connection.recv(65536)
    names = re.findall(rb"x-request-id: (\w+)", text)
    assert len(set(names)) == 3
    for name in names:
        assert line_of(watched, name.decode())["request"] == "GET /v2/pipelined"


def test_health_and_metrics_have_no_lines_and_no_line_has_an_input(watched: Watched) -> None:
    for path in ("/livez", "/readyz", "/v2/health/ready", "/metrics"):
        assert httpx.get(watched.http + path, headers={"x-request-id": f"quiet-{path}"}).status_code == 200
    httpx.post(
        f"{watched.http}/predict?secret=31415",
        json={"task": "topic", "inputs": [[31415.0, 1.0, 1.0, 1.0]]},
        headers={"x-request-id": "loud", "authorization": "Bearer 31415"},
    )
    line_of(watched, "loud")
    text = watched.log.read_text(encoding="utf-8")
    assert "quiet-" not in text
    assert "31415" not in text


def logged(log: AccessLog, path: str = "/", *, status: int = 200, done: bool = True, **headers: str) -> str:
    """Return the id that the answer of one request carries."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        from coterie.runtime.serving.observing._calls import current_call

        call = current_call()
        assert call is not None
        if done:
            timing = Timing(1.0, 1.001, 0.002, 3)
            call.done = Done("topic", "1", "http", "ok", 1, 0.004, timing)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async def ask() -> str:
        transport = httpx.ASGITransport(app=CallMiddleware(app, Calls([log])))
        async with httpx.AsyncClient(transport=transport, base_url="http://coterie") as client:
            answer = await client.get(path, headers=headers)
        (own,) = answer.headers.get_list("x-request-id")
        return own

    return asyncio.run(ask())


def test_a_share_of_what_is_answered_is_told_and_all_that_fails() -> None:
    stream = io.StringIO()
    log = AccessLog(stream, share=0.2)
    for _ in range(200):
        logged(log)
    assert 10 <= len(stream.getvalue().splitlines()) <= 80
    stream.truncate(0)
    for _ in range(20):
        logged(log, status=500)
    assert stream.getvalue().count(" 500 ") == 20


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize("given", ["two words", "x" * 129, "ü", ""])
def test_nothing_that_a_client_makes_up_looks_like_another_line(as_json: bool, given: str) -> None:
    stream = io.StringIO()
    headers = {"x-request-id": given.encode("latin-1")}
    own = logged(AccessLog(stream, as_json=as_json), "/a%0Ab", status=404, done=False, **headers)  # type: ignore[arg-type]
    assert own != given
    (line,) = stream.getvalue().splitlines()
    assert own in line


def test_a_log_that_cannot_be_written_fails_no_request() -> None:
    stream = io.StringIO()
    stream.close()
    assert logged(AccessLog(stream))


def test_faults_are_json_too() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        record = logging.LogRecord("coterie.serving", 40, "", 1, "it %s", ("failed",), sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["logger"], line["message"]) == ("error", "coterie.serving", "it failed")
    assert "ValueError: broken" in line["error"]
