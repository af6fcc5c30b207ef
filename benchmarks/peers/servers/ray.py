"""Ray Serve with model multiplexing: one replica, which opens a session of ONNX Runtime for each task.

Its documentation advises the settings for throughput (one environment variable), no access log, and batches
where the model gains by them; both are tried. The model is named by a header.
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
    return post("/", json_body(inputs=rows.tolist()), f"serve_multiplexed_model_id: {task}\r\n")


PEER = Peer(
    title="Ray Serve",
    requirements="ray",
    ways={
        "multiplexed": Way(settings={"batch_rows": 1, "batch_seconds": 0.0}),
        "multiplexed, batches": Way(settings={"batch_rows": 32, "batch_seconds": 0.001}),
    },
    running=script_server(
        "{scripts}/ray_server.py",
        ready="/-/healthz",
        environment={"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_USAGE_STATS_ENABLED": "0"},
    ),
    encode=_encode,
    decode=json_scores,
)
