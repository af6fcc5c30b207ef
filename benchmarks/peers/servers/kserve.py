"""KServe's Python server: a ``kserve.Model`` for each task, asked by the Open Inference Protocol over HTTP."""

from __future__ import annotations

from benchmarks.peers.servers.peer import Peer, Way, script_server
from benchmarks.peers.servers.protocol import oip_request, oip_scores

PEER = Peer(
    title="KServe's Python server",
    requirements="kserve",
    ways={
        "JSON": Way(settings={"binary": False}),
        "binary tensors": Way(settings={"binary": True}, encoding="binary"),
    },
    running=script_server("{scripts}/kserve_server.py", ready="/v2/health/ready"),
    encode=oip_request,
    decode=oip_scores,
)
