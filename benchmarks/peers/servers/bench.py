"""Runs a peer in each of its ways, and says which is the best."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.peers.servers.asking import Asker, Side
from benchmarks.peers.servers.peer import Peer, Way
from benchmarks.peers.starting import NotStartedError
from benchmarks.serving.cores import pinned
from coterie.runtime import Bundle

UNUSABLE = (NotStartedError, ConnectionError, TimeoutError)
"""How a peer fails. A wrong answer is a mistake of ours, and ends everything."""

_NAMES_AN_ERROR = re.compile(r"[\w.]*(Error|Exception)\b")


@dataclass(frozen=True)
class Bench:
    """Where peers are run and asked."""

    bundle: Bundle
    """Whose task graphs they serve."""
    asker: Asker
    cores: tuple[int, int]
    """The server's and the client's."""

    def rates(self, peer: Peer, programs: Path) -> dict[str, float | str]:
        """Return each way's answers a second, or why there are none.

        Args:
            peer: Which.
            programs: Of its environment.
        """
        found: dict[str, float | str] = {}
        for name, way in peer.ways.items():
            try:
                with self.running(peer, way, programs) as (side, _):
                    found[name] = self.settled_rate(side)
            except UNUSABLE as error:
                found[name] = why(error)
        return found

    @contextmanager
    def running(self, peer: Peer, way: Way, programs: Path) -> Iterator[tuple[Side, float]]:
        """Run a peer in one way while the ``with`` block lasts; give the seconds until it was ready, too."""
        with TemporaryDirectory() as folder, ExitStack() as stack:
            began = time.perf_counter()
            at = pinned(stack, self.cores, peer.running(programs, self.bundle, Path(folder), way.settings))
            took = time.perf_counter() - began
            encode, decode = partial(peer.encode, way.encoding), partial(peer.decode, way.encoding)
            yield Side(peer.title, at, encode, decode), took

    def settled_rate(self, side: Side) -> float:
        """Return how many answers a second a server gives, once its answers are right and it is warm."""
        self.asker.check(side)
        self.asker.closed(side, "uniform")
        return round(self.asker.closed(side, "uniform").rate, 1)


def best_of(rates: dict[str, float | str]) -> str | None:
    """Return the way that gives the most answers, if any gives some."""
    usable = {name: rate for name, rate in rates.items() if isinstance(rate, float)}
    return max(usable, key=lambda name: usable[name]) if usable else None


def why(error: BaseException) -> str:
    """Return what went wrong in a line: of a log the last one that names an error."""
    lines = str(error).strip().splitlines() or [""]
    named = [line for line in lines if _NAMES_AN_ERROR.match(line)] or lines
    return f"{type(error).__name__}: {named[-1].strip()[:200]}"
