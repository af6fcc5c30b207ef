"""Plain BentoML: one service with a session of ONNX Runtime for each task.

Its documentation advises adaptive batching, whose API takes one argument: here questions with their tasks,
and what came together is run task by task. The same service without batching is tried as well.
"""

from __future__ import annotations

import json

import numpy as np

from benchmarks.peers.servers.peer import Encoding, Floats, Peer, Way, json_body, post, script_server
from coterie.cli._bench._clients import Reply


def _encode(encoding: Encoding, task: str, name: str, rows: Floats) -> bytes:
    del encoding, name
    return post("/predict", json_body(questions=[{"task": task, "inputs": rows.tolist()}]))


def _decode(encoding: Encoding, reply: Reply) -> Floats:
    del encoding
    return np.array(json.loads(reply.body)[0]["scores"], np.float32)


PEER = Peer(
    title="BentoML",
    requirements="bentoml",
    ways={
        "one by one": Way(settings={"batch_rows": 1, "max_latency_ms": 1000}),
        "adaptive batching": Way(settings={"batch_rows": 32, "max_latency_ms": 1000}),
    },
    running=script_server(
        *("-m", "bentoml", "serve", "bentoml_service:Tasks", "--host", "127.0.0.1", "--port", "{port}"),
        ready="/readyz",
        environment={"BENTOML_DO_NOT_TRACK": "True"},
    ),
    encode=_encode,
    decode=_decode,
)
