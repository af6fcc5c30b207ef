"""LitServe: one API, whose worker has a session of ONNX Runtime for each task.

Its documentation advises dynamic batching, and the fast queue (ZeroMQ) under high load. A worker for each
task would be as many processes on one core.
"""

from __future__ import annotations

from benchmarks.peers.servers.peer import (
    Encoding,
    Floats,
    Peer,
    Way,
    json_body,
    json_scores,
    post,
    script_server,
)


def _encode(encoding: Encoding, task: str, name: str, rows: Floats) -> bytes:
    del encoding, name
    return post("/predict", json_body(task=task, inputs=rows.tolist()))


PEER = Peer(
    title="LitServe",
    requirements="litserve",
    ways={
        "one by one": Way(settings={"batch_rows": 1, "batch_seconds": 0.0, "fast_queue": False}),
        "fast queue": Way(settings={"batch_rows": 1, "batch_seconds": 0.0, "fast_queue": True}),
        "batches, fast queue": Way(settings={"batch_rows": 32, "batch_seconds": 0.001, "fast_queue": True}),
    },
    running=script_server("{scripts}/litserve_server.py", ready="/health"),
    encode=_encode,
    decode=json_scores,
)
