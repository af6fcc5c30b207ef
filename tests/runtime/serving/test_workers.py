"""Workers that are killed, and servers that are told to stop, while they are asked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import grpc
import httpx
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from coterie.runtime.serving import Addresses, running_server

from ..handmade import HandMade

BODY = {"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}


def ask_http(at: Addresses) -> str:
    try:
        return str(httpx.post(f"http://{at.http}/v2/models/topic/infer", json=BODY).status_code)
    except httpx.TransportError as error:
        return type(error).__name__


def ask_grpc(at: Addresses) -> str:
    # A pool of its own: a new connection each time, as new clients have.
    with grpc.insecure_channel(at.grpc or "", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = service_pb2.ModelInferRequest(model_name="topic")
        request.inputs.add(name="features", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend(
            [1, 2, 3, 4]
        )
        try:
            service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=20)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "200"


def ask_grpc_within(at: Addresses, seconds: float) -> str:
    deadline = time.monotonic() + seconds
    while (outcome := ask_grpc(at)) == "UNAVAILABLE" and time.monotonic() < deadline:
        time.sleep(0.1)
    return outcome


@contextlib.contextmanager
def asking(at: Addresses, *ways: Callable[[Addresses], str]) -> Iterator[Counter[str]]:
    """Ask all the time, each way in two threads; what came of it is counted."""
    outcomes: Counter[str] = Counter()
    over = threading.Event()

    def ask(way: Callable[[Addresses], str]) -> None:
        while not over.is_set():
            outcomes[f"{way.__name__} {way(at)}"] += 1

    threads = [threading.Thread(target=ask, args=(way,)) for way in ways for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield outcomes
    finally:
        over.set()
        for thread in threads:
            thread.join()


def serving(at: Addresses) -> set[int]:
    """Return the two workers, once both of them listen."""
    port = int((at.grpc or "").rpartition(":")[2])
    deadline = time.monotonic() + 30
    while True:
        found = workers(at)
        with contextlib.suppress(psutil.Error):  # one that has died just now
            ports = [{each.laddr.port for each in psutil.Process(pid).net_connections()} for pid in found]
            if len(found) == 2 and all(port in each for each in ports):
                return found
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers(at: Addresses) -> set[int]:
    found = set()
    for child in psutil.Process(at.pid).children():
        with contextlib.suppress(psutil.Error):  # one that has died is one no more
            if "--worker-id" in child.cmdline():
                found.add(child.pid)
    return found


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_also_in_a_container(
    features: HandMade, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENTOML_CONTAINERIZED", "true")
    with running_server(features.path, threads=1, workers=2) as at:
        before = serving(at)
        killed = min(before)
        with asking(at, ask_http, ask_grpc) as outcomes:
            time.sleep(0.5)
            os.kill(killed, signal.SIGKILL)
            after = serving(at)
            time.sleep(0.5)
        assert after - before
        assert killed not in after
        # Of what the killed worker had in hand some is lost; the other one answers all that comes after.
        lost = sum(count for outcome, count in outcomes.items() if not outcome.endswith("200"))
        assert lost <= 4 * 2, outcomes
        assert outcomes["ask_http 200"] > 20
        assert outcomes["ask_grpc 200"] > 20
        assert Counter(ask_grpc(at) for _ in range(20)) == {"200": 20}
        assert Counter(ask_http(at) for _ in range(20)) == {"200": 20}


@pytest.mark.slow
def test_the_only_worker_is_replaced_as_soon_as_it_is_dead_and_again(features: HandMade) -> None:
    with running_server(features.path, threads=1) as at:
        for _ in range(2):
            (killed,) = workers(at)
            os.kill(killed, signal.SIGKILL)
            began = time.monotonic()
            while not workers(at) - {killed}:
                # BentoML by itself looks for dead workers every ten seconds.
                assert time.monotonic() < began + 4
                time.sleep(0.02)
            assert ask_grpc_within(at, 30) == ask_http(at) == "200"


@pytest.mark.slow
def test_a_server_that_is_stopped_answers_what_it_has_accepted(features: HandMade) -> None:
    content = json.dumps(BODY).encode()
    with running_server(features.path, threads=1) as at:
        host, _, port = at.http.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=20) as accepted:
            length = f"Host: {host}\r\nContent-Length: {len(content)}\r\n\r\n"
            head = f"POST /v2/models/topic/infer HTTP/1.1\r\n{length}"
            accepted.sendall(head.encode() + content[:10])
            with asking(at, ask_http, ask_grpc) as outcomes:
                deadline = time.monotonic() + 30
                while min(outcomes["ask_http 200"], outcomes["ask_grpc 200"]) <= 5:
                    assert time.monotonic() < deadline, outcomes
                    time.sleep(0.05)
                os.kill(at.pid, signal.SIGTERM)
                time.sleep(1)
                accepted.sendall(content[10:])
                answer = accepted.recv(65536)
                psutil.Process(at.pid).wait(20)
                time.sleep(0.2)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        # Nobody is told that the server failed, or that their deadline is over: refused, or answered.
        # CANCELLED is what gRPC itself says to a call that comes in the moment in which it stops.
        refused = {"ConnectError", "RemoteProtocolError", "ReadError", "503", "UNAVAILABLE", "CANCELLED"}
        assert {outcome.split()[1] for outcome in outcomes} <= refused | {"200"}, outcomes
