"""A real server of two workers whose metrics, spans and log lines are all there to be read."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from coterie.runtime.serving._ports import free_ports

T = TypeVar("T")
ROW = [1.0, 2.0, 3.0, 4.0]


@dataclass(frozen=True)
class Watched:
    """Where the server listens, and where what it tells arrives."""

    http: str
    grpc: str
    spans: list[Any]
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """Return the log's lines so far that are JSON."""
        text = self.log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def predict(self, task: str = "topic", **headers: str) -> httpx.Response:
        """Ask over a connection of its own, so that any worker may answer."""
        body = {"task": task, "inputs": [ROW]}
        return httpx.post(f"{self.http}/predict", json=body, headers=headers)


def eventually(look: Callable[[], T], *, seconds: float = 10.0) -> T:
    """Return what a look gives as soon as it is something; its last answer when the time is over."""
    ends = time.monotonic() + seconds
    while not (found := look()) and time.monotonic() < ends:
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def watched_server(bundle: Path, home: Path) -> Iterator[Watched]:
    spans: list[Any] = []
    with _collector(spans) as endpoint, contextlib.ExitStack() as stack:
        http, grpc = free_ports("127.0.0.1", 2)
        log = home / "log"
        output = stack.enter_context(log.open("wb"))
        environment = os.environ | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "coterie.cli", "serve", str(bundle), "--workers", "2"),
                *("--http-port", str(http), "--grpc-port", str(grpc), "--threads", "1"),
                *("--log-format", "json"),
            ],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        watched = Watched(f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", spans, log)
        try:
            assert eventually(lambda: _both_answer(watched), seconds=60), log.read_text()
            yield watched
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def _collector(spans: list[Any]) -> Iterator[str]:
    """Take spans as a collector of OpenTelemetry does, over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def _both_answer(watched: Watched) -> bool:
    try:
        text = httpx.get(f"{watched.http}/metrics").text
    except httpx.TransportError:
        return False
    return "coterie_workers 2.0" in text
