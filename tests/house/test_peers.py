"""Every server that coterie is compared with can be installed and asked."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks.peers import HERE, requirements
from benchmarks.peers.servers import PEERS
from benchmarks.peers.servers.peer import Peer

PINNED = re.compile(r"[a-z0-9-]+(\[[a-z]+\])?==[0-9][0-9.]*")
WAYS = [(peer, name) for peer in PEERS.values() for name in peer.ways]


def test_every_file_of_a_peer_is_in_the_registry() -> None:
    files = {
        path.stem for path in Path(HERE / "servers").glob("*.py") if "\nPEER = Peer(" in path.read_text()
    }
    assert files == set(PEERS)


@pytest.mark.parametrize("path", sorted(HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_requirements_are_pinned_and_name_no_address(path: Path) -> None:
    lines = requirements(path.stem)
    assert lines
    assert [line for line in lines if not PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_has_requirements(name: str) -> None:
    assert (HERE / f"{name}.txt").is_file()


@pytest.mark.parametrize(("peer", "name"), WAYS, ids=[f"{peer.title}-{name}" for peer, name in WAYS])
def test_a_question_is_a_whole_request_and_its_settings_are_kept(peer: Peer, name: str) -> None:
    way = peer.ways[name]
    request = peer.encode(way.encoding, "task_07", "inputs", np.ones((1, 3), np.float32))
    head, _, body = request.partition(b"\r\n\r\n")
    assert f"\r\ncontent-length: {len(body)}" in head.decode().lower()
    assert b"task_07" in request
    assert json.loads(json.dumps(way.settings)) == way.settings
