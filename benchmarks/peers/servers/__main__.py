"""Coterie beside other servers over the same task graphs: a core for the server, one for the client.

    python -m benchmarks.peers.servers                    # environments are made when they are first needed
    python -m benchmarks.peers.servers --tasks 20 100 1000 --peers mlserver bentoml
    python -m benchmarks.peers.servers --seconds 0.5 --rounds 1

Single rows over HTTP, no two alike. Every way to run a peer is tried, and the best is compared with coterie,
asked in the same encoding. Closed loop: 32 clients ask, wait, and ask again; what a server can do. Open loop:
requests come at random times at parts of the rate that the peer can do; times count from when one should
have been sent. The two are asked in turn, and the other is halted meanwhile, since some take a core to wait.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
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
from benchmarks.peers.servers.bench import UNUSABLE, Bench, why
from benchmarks.peers.servers.comparing import compared
from benchmarks.peers.servers.peer import Encoding, Peer
from benchmarks.peers.servers.protocol import oip_request, oip_scores
from benchmarks.peers.servers.tables import show
from benchmarks.serving.cores import pinned, pss
from benchmarks.serving.engine import EXPERTS, USED, export_untrained
from coterie.runtime import load
from coterie.runtime.serving import running_server

ENCODINGS: tuple[Encoding, ...] = ("json", "binary")
MEBIBYTE = 1 << 20
CONSOLE = Console()


def with_peer(
    bench: Bench, peer: Peer, ours: Mapping[Encoding, Side], chosen: argparse.Namespace
) -> dict[str, Any]:
    """Return all about one peer beside coterie, or why it is left out."""
    about: dict[str, Any] = {
        "title": peer.title,
        "requirements": requirements(peer.requirements),
        "settings": {name: dict(way.settings) for name, way in peer.ways.items()},
    }
    programs = environment(peer.requirements)
    if isinstance(programs, str):
        return about | {"skipped": programs}
    try:
        with bench.best_of(peer, programs) as best:
            about["ways"] = best.rates
            if best.way is None or best.side is None:
                return about | {"skipped": next(iter(best.rates.values()))}
            encoding = peer.ways[best.way].encoding
            sides = {"coterie": ours[encoding], "peer": best.side}
            found = compared(bench.asker, **sides, loads=chosen.loads, rounds=chosen.rounds)
            mib = {name: round(pss(side.at.pid) / MEBIBYTE) for name, side in sides.items()}
    except UNUSABLE as error:
        return about | {"skipped": why(error)}
    return {
        **about,
        "way": best.way,
        "encoding": encoding,
        "start_seconds": best.start_seconds,
        "mib": mib,
        **found,
    }


def measure(tasks: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Compare coterie with every peer over a model of so many tasks."""
    model, width = model_of(tasks)
    cores = (chosen.cores[0], chosen.cores[1])
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        engine = load(export_untrained(model, Path(scratch) / "bundle"), threads=1)
        at = pinned(stack, cores, running_server(engine.bundle.path, threads=1, grpc=False))
        ours = {
            each: Side("coterie", at, partial(oip_request, each), partial(oip_scores, each))
            for each in ENCODINGS
        }
        bench = Bench(engine.bundle, Asker(engine, seconds=chosen.seconds, clients=chosen.clients), cores)
        rates = {encoding: bench.settled_rate(side) for encoding, side in ours.items()}
        CONSOLE.print(f"{tasks} tasks, coterie: {rates}")
        peers = []
        for name in chosen.peers:
            found = with_peer(bench, PEERS[name], ours, chosen)
            peers.append(found)
            CONSOLE.print(f"{found['title']}: {found.get('ways') or found['skipped']}")
    return {"tasks": tasks, "width": width, "coterie": rates, "peers": peers}


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, nargs="+", default=[20])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--seconds", type=float, default=1.2, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="of each comparison; their answers are pooled")
    parser.add_argument("--clients", type=int, default=32, help="of the closed loop")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.8], help="parts of a peer's most")
    parser.add_argument("--cores", type=int, nargs=2, default=[0, 1], help="the servers', the client's")
    chosen = parser.parse_args()
    uvloop.install()
    results = [measure(tasks, chosen) for tasks in chosen.tasks]
    for result in results:
        show(CONSOLE, result)
    about = {key: getattr(chosen, key) for key in ("seconds", "rounds", "clients", "loads")}
    print(write_result("peers_servers", {**about, "experts": EXPERTS, "used": USED, "results": results}))


if __name__ == "__main__":
    main()
