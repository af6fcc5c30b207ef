"""MLServer: a model for each task, asked by the Open Inference Protocol over HTTP.

Its documentation advises adaptive batching, tuned by trying; and worker processes, which one core
has no use for but which are tried as well. It takes no binary tensors over HTTP.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers.mlserver import Tuning, running_mlserver
from benchmarks.peers.servers.peer import Peer, Settings, Way
from benchmarks.peers.servers.protocol import oip_request, oip_scores
from coterie.runtime import Bundle
from coterie.runtime.serving import Addresses


def _running(
    programs: Path, bundle: Bundle, folder: Path, settings: Settings
) -> AbstractContextManager[Addresses]:
    return running_mlserver(programs, bundle, folder, Tuning(**settings))


PEER = Peer(
    title="MLServer",
    requirements="mlserver",
    ways={
        "as it is": Way(settings=asdict(Tuning())),
        "adaptive batching": Way(settings=asdict(Tuning(batch_rows=32, batch_seconds=0.001))),
        "a worker process": Way(settings=asdict(Tuning(parallel_workers=1))),
    },
    running=_running,
    encode=oip_request,
    decode=oip_scores,
)
