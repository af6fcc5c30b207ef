"""Coterie beside other servers over the same task graphs: a core for the server, one for the client.

    python -m benchmarks.peers.servers                    # environments are made when they are first needed
    python -m benchmarks.peers.servers --tasks 20 100 1000 --peers mlserver bentoml
    python -m benchmarks.peers.servers --seconds 0.5 --rounds 1

Single rows over HTTP, no two alike. Every way to run a peer is tried, and the best is compared with coterie, asked in the
same encoding. Closed loop: 32 clients ask, wait, and ask again; what a server can do. Open loop: requests come at random
times at parts of the rate that the peer can do; times count from when a request should have been sent. The two are
asked in turn; what an idle peer takes of the core meanwhile is to coterie's disadvantage.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from rich.console import Console

from benchmarks.common import write_result
from benchmarks.peers import environment, requirements
from benchmarks.peers.libraries import model_of
from benchmarks.peers.servers import PEERS
from benchmarks.peers.servers.asking import Asker, Side
from benchmarks.peers.servers.comparing import compared
from benchmarks.peers.servers.peer import Encoding, Peer
from benchmarks.peers.servers.protocol import oip_request, oip_scores
from benchmarks.peers.servers.tables import show
from benchmarks.peers.servers.trying import UNUSABLE, best_of, settled_rate
from benchmarks.serving.cores import pinned, pss
from benchmarks.serving.engine import EXPERTS, USED, export_untrained
from coterie.runtime import Engine, load
from coterie.runtime.serving import Addresses, running_server

ENCODINGS: tuple[Encoding, ...] = ("json", "binary")
MEBIBYTE = 1 << 20


class Comparison:
    """Coterie running over a bundle, and what is compared with it.

    Args:
        engine: Of the bundle.
        ours: Where coterie answers.
        chosen: What the command line says.
        scratch: A folder for the peers' files.
    """

    def __init__(self, engine: Engine, ours: Addresses, chosen: argparse.Namespace, scratch: Path) -> None:
        self._bundle, self._chosen, self._scratch = engine.bundle, chosen, scratch
        self._asker = Asker(engine, seconds=chosen.seconds, clients=chosen.clients)
        self._ours = {
            each: Side(ours, partial(oip_request, each), partial(oip_scores, each)) for each in ENCODINGS
        }

    def own_rates(self) -> dict[str, float]:
        """Return coterie's answers a second in each encoding."""
        return {name: round(settled_rate(self._asker, side), 1) for name, side in self._ours.items()}

    def with_peer(self, peer: Peer) -> dict[str, Any]:
        """Return all about one peer, or why it is left out."""
        about: dict[str, Any] = {
            "title": peer.title,
            "requirements": requirements(peer.requirements),
            "settings": {name: dict(way.settings) for name, way in peer.ways.items()},
        }
        programs = environment(peer.requirements)
        if isinstance(programs, str):
            return about | {"skipped": programs}
        cores = (self._chosen.cores[0], self._chosen.cores[1])
        with best_of(peer, programs, self._bundle, self._scratch, self._asker, cores) as (best, rates):
            about["ways"] = rates
            if best is None:
                return about | {"skipped": next(iter(rates.values()))}
            encoding = peer.ways[best.way].encoding
            ours = self._ours[encoding]
            about |= {"way": best.way, "encoding": encoding, "start_seconds": best.start_seconds}
            try:
                about |= compared(
                    self._asker, ours, best.side, loads=self._chosen.loads, rounds=self._chosen.rounds
                )
            except UNUSABLE as error:
                return about | {"skipped": f"{type(error).__name__} under load: {error}"}
            sides = {"coterie": ours, "peer": best.side}
            return about | {"mib": {name: round(pss(side.at.pid) / MEBIBYTE) for name, side in sides.items()}}


def measure(tasks: int, names: Sequence[str], chosen: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Compare coterie with every peer over a model of so many tasks."""
    model, width = model_of(tasks)
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        engine = load(export_untrained(model, Path(scratch) / "bundle"), threads=1)
        server = running_server(engine.bundle.path, threads=1, grpc=False)
        ours = pinned(stack, (chosen.cores[0], chosen.cores[1]), server)
        comparison = Comparison(engine, ours, chosen, Path(scratch))
        found: dict[str, Any] = {
            "tasks": tasks,
            "width": width,
            "coterie": comparison.own_rates(),
            "peers": [],
        }
        for name in names:
            found["peers"].append(comparison.with_peer(PEERS[name]))
            shown = found["peers"][-1]
            console.print(f"{tasks} tasks, {shown['title']}: {shown.get('ways') or shown['skipped']}")
    return found


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[20])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison, pooled")
    parser.add_argument("--clients", type=int, default=32, help="of the closed loop")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8], help="parts of a peer's most")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1], help="the servers', the client's")
    chosen = parser.parse_args()
    uvloop.install()
    console = Console()
    results = [measure(tasks, chosen.peers, chosen, console) for tasks in chosen.tasks]
    for result in results:
        show(console, result)
    about = {key: getattr(chosen, key) for key in ("seconds", "rounds", "clients", "loads")}
    print(write_result("peers_servers", {**about, "experts": EXPERTS, "used": USED, "results": results}))


if __name__ == "__main__":
    main()
