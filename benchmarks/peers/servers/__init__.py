"""Servers that somebody would take instead of coterie, over the same task graphs; a file for each."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.peers.servers import bentoml, kserve, litserve, mlserver, pytriton, ray
from benchmarks.peers.servers.peer import Peer

PEERS: Mapping[str, Peer] = {
    peer.requirements: peer
    for peer in (mlserver.PEER, bentoml.PEER, litserve.PEER, kserve.PEER, ray.PEER, pytriton.PEER)
}
"""By the name of their requirements."""
