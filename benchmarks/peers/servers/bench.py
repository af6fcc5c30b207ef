"""Runs a peer in each of its ways, and keeps the best."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from benchmarks.peers.servers.asking import Asker, Side
from benchmarks.peers.servers.peer import Peer, Way
from benchmarks.peers.starting import NotStartedError
from benchmarks.serving.cores import halted, pinned
from coterie.runtime import Bundle

UNUSABLE = (NotStartedError, ConnectionError, TimeoutError, psutil.NoSuchProcess)
"""How a peer fails. A wrong answer is a mistake of ours, and ends everything."""

_NAMES_AN_ERROR = re.compile(r"[\w.]*(Error|Exception)\b")
_FOLDERS = re.compile(r"(?:/[\w.+-]+)+/")


@dataclass(frozen=True)
class Chosen:
    """The best of a peer's ways, which runs; or none, if it cannot be run in any."""

    rates: Mapping[str, float | str]
    """Each way's answers a second, or why there are none."""
    way: str | None = None
    side: Side | None = None
    start_seconds: float = 0.0
    """Until it was ready."""
    rate: float = 0.0
    """Its answers a second."""


@dataclass(frozen=True)
class Bench:
    """Where peers are run and asked."""

    bundle: Bundle
    """Whose task graphs they serve."""
    asker: Asker
    cores: tuple[int, int]
    """The server's and the client's."""

    @contextmanager
    def best_of(self, peer: Peer, programs: Path, only: str | None = None) -> Iterator[Chosen]:
        """Run a peer in its best way while the ``with`` block lasts.

        Args:
            peer: The peer.
            programs: Its environment's.
            only: The way that is known to be its best, if the others need not be tried.
        """
        rates: dict[str, float | str] = {}
        chosen = Chosen(rates)
        with ExitStack() as kept:
            for name, way in peer.ways.items():
                if only not in (None, name):
                    continue
                try:
                    with ExitStack() as stack, _aside(chosen.side):
                        began = time.perf_counter()
                        side = self._start(stack, peer, way, programs)
                        took = round(time.perf_counter() - began, 1)
                        rates[name] = rate = self.settled_rate(side)
                        ahead = stack.pop_all() if rate > chosen.rate else None
                except UNUSABLE as error:
                    rates[name] = why(error)
                    continue
                if ahead is not None:
                    kept.close()
                    kept.push(ahead)
                    chosen = Chosen(rates, name, side, took, rate)
            yield chosen

    def settled_rate(self, side: Side) -> float:
        """Return how many answers a second a server gives, once its answers are right and it is warm."""
        self.asker.check(side)
        self.asker.closed(side, traffic="uniform", seed=0)
        return round(self.asker.closed(side, traffic="uniform", seed=1).rate, 1)

    def _start(self, stack: ExitStack, peer: Peer, way: Way, programs: Path) -> Side:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        at = pinned(stack, self.cores, peer.running(programs, self.bundle, folder, way.settings))
        return Side(peer.title, at, partial(peer.encode, way.encoding), partial(peer.decode, way.encoding))


def _aside(side: Side | None) -> AbstractContextManager[None]:
    """Halt a server, if there is one."""
    return nullcontext() if side is None else halted(side.at.pid)


def why(error: BaseException) -> str:
    """Return what went wrong in a line: of a log the last one that names an error, without folders."""
    lines = str(error).strip().splitlines() or [""]
    named = [line for line in lines if _NAMES_AN_ERROR.match(line)] or lines
    return f"{type(error).__name__}: {_FOLDERS.sub('', named[-1].strip())[:200]}"
