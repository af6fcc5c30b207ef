"""Triton through PyTriton: a model for each task, whose batches a Python function answers with ONNX Runtime.

Its documentation advises dynamic batching, with a delay that is found by trying. Asked with binary tensors.
"""

from __future__ import annotations

import sysconfig

from benchmarks.peers.servers.peer import Peer, Way, script_server
from benchmarks.peers.servers.protocol import oip_request, oip_scores

PEER = Peer(
    title="Triton",
    requirements="pytriton",
    ways={
        "batches of what waits": Way(settings={"batch_rows": 32, "delay_microseconds": 0}, encoding="binary"),
        "batches after 1 ms": Way(settings={"batch_rows": 32, "delay_microseconds": 1000}, encoding="binary"),
    },
    running=script_server(
        "{scripts}/pytriton_server.py",
        ready="/v2/models/{last}/ready",
        # Triton's own interpreter must find the library of the Python that PyTriton was installed for.
        environment={"LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR"))},
    ),
    encode=oip_request,
    decode=oip_scores,
)
