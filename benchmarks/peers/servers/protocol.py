"""How servers are asked that speak the Open Inference Protocol over HTTP."""

from __future__ import annotations

from benchmarks.peers.servers.peer import Encoding, Floats
from benchmarks.serving.questions import decode, encode
from coterie.cli._bench._clients import Reply


def oip_request(encoding: Encoding, task: str, name: str, rows: Floats) -> bytes:
    """Return a whole request for a task's scores of rows ``[R, ...]``."""
    return encode(encoding, task, name, rows)


def oip_scores(encoding: Encoding, reply: Reply) -> Floats:
    """Return the scores ``[R, C]`` that an answer says."""
    return decode(encoding, reply).scores
