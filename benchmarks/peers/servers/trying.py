"""Runs a peer in each of its ways, and keeps the best."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.peers.servers.asking import Asker, Side
from benchmarks.peers.servers.peer import Peer
from benchmarks.peers.starting import NotStarted
from benchmarks.serving.cores import pinned
from coterie.runtime import Bundle

UNUSABLE = (NotStarted, ConnectionError, TimeoutError)
"""What a peer's failure is; a wrong answer is ours, and ends everything."""


@dataclass(frozen=True)
class Chosen:
    """The best of a peer's ways, which runs."""

    way: str
    side: Side
    start_seconds: float
    """Until it was ready."""
    rate: float
    """Answers a second of a closed loop."""


@contextmanager
def best_of(
    peer: Peer, programs: Path, bundle: Bundle, scratch: Path, asker: Asker, cores: tuple[int, int]
) -> Iterator[tuple[Chosen | None, dict[str, float | str]]]:
    """Run a peer in its best way while the ``with`` block lasts.

    Args:
        peer: Which.
        programs: Of its environment.
        bundle: Whose task graphs it serves.
        scratch: A folder for its files.
        asker: Asks it in a closed loop, once to warm it up and once to measure.
        cores: The server's and the client's.

    Yields:
        The best way, or none if it cannot be used in any; and each way's answers a second, or why there are none.
    """
    chosen: Chosen | None = None
    found: dict[str, float | str] = {}
    with ExitStack() as kept:
        for number, (name, way) in enumerate(peer.ways.items()):
            folder = scratch / f"{peer.requirements}-{number}"
            folder.mkdir()
            try:
                with ExitStack() as stack:
                    began = time.perf_counter()
                    at = pinned(stack, cores, peer.running(programs, bundle, folder, way.settings))
                    took = time.perf_counter() - began
                    encode, decode = partial(peer.encode, way.encoding), partial(peer.decode, way.encoding)
                    side = Side(at, encode, decode)
                    rate = settled_rate(asker, side)
                    found[name] = round(rate, 1)
                    if chosen is None or rate > chosen.rate:
                        chosen = Chosen(name, side, round(took, 1), rate)
                        kept.close()
                        kept.push(stack.pop_all())
            except UNUSABLE as error:
                found[name] = f"{type(error).__name__}: {str(error).strip()[-300:]}"
        yield chosen, found


def settled_rate(asker: Asker, side: Side) -> float:
    """Return how many answers a second a server gives once it has checked out and warmed up."""
    asker.check(side)
    asker.closed(side, "uniform")
    return asker.closed(side, "uniform").rate
