"""KServe's Python server: a model for each task, asked by the Open Inference Protocol over HTTP."""

from __future__ import annotations

from benchmarks.peers.servers.peer import Encoding, Floats, Peer, Way, script_server
from benchmarks.peers.servers.protocol import oip_request, oip_scores


def _encode(encoding: Encoding, task: str, name: str, rows: Floats) -> bytes:
    request = oip_request(encoding, task, name, rows)
    if encoding == "json":
        return request
    # Of what is called JSON, it parses the tensors too.
    return request.replace(b"Content-Type: application/json", b"Content-Type: application/octet-stream", 1)


PEER = Peer(
    title="KServe",
    requirements="kserve",
    ways={
        "JSON": Way(settings={"binary": False}),
        "binary tensors": Way(settings={"binary": True}, encoding="binary"),
    },
    running=script_server("{scripts}/kserve_server.py", ready="/v2/health/ready"),
    encode=_encode,
    decode=oip_scores,
)
