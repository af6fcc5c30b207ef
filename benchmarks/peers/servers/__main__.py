"""Coterie beside other servers over the same task graphs: a core for the server, one for the client.

    python -m benchmarks.peers.servers                    # environments are made when they are first needed
    python -m benchmarks.peers.servers --tasks 20 100 1000 --peers mlserver bentoml
    python -m benchmarks.peers.servers --seconds 0.5 --rounds 1
    python -m benchmarks.peers.servers --tasks 1000 --peers ray --known   # beside what is written

Single rows over HTTP, no two alike. Every way to run a peer is tried, and the best is compared with
coterie, asked in the same encoding; with ``--known`` only the way that was the best with the fewest tasks.
Closed loop: 32 clients ask, wait, and ask again; what a server can do. Open loop: requests come at random
times at parts of the rate that the peer can do; times count from when one should have been sent. The two
are asked in turn, and the other is halted meanwhile, since some take a core to wait.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop
from rich.console import Console

from benchmarks.common import result_folder, write_result
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
RESULT = "peers_servers"
MEBIBYTE = 1 << 20
CONSOLE = Console()


def with_peer(
    bench: Bench, peer: Peer, ours: Mapping[Encoding, Side], only: str | None, chosen: argparse.Namespace
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
        with bench.best_of(peer, programs, only) as best:
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


def measure(tasks: int, known: Mapping[str, str], chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Compare coterie with every peer over so many tasks, and yield what is known after each.

    Args:
        tasks: N.
        known: The peers' best ways by title, where they need not be searched.
        chosen: What the command was told.
    """
    model, width = model_of(tasks)
    cores = (chosen.cores[0], chosen.cores[1])
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        engine = load(export_untrained(model, Path(scratch) / "bundle"), threads=1)
        began = time.perf_counter()
        at = pinned(stack, cores, running_server(engine.bundle.path, threads=1, grpc=False))
        took = round(time.perf_counter() - began, 1)
        ours = {
            each: Side("coterie", at, partial(oip_request, each), partial(oip_scores, each))
            for each in ENCODINGS
        }
        bench = Bench(engine.bundle, Asker(engine, seconds=chosen.seconds, clients=chosen.clients), cores)
        rates = {encoding: bench.settled_rate(side) for encoding, side in ours.items()}
        CONSOLE.print(f"{tasks} tasks, coterie: {rates}")
        about: dict[str, Any] = {
            key: getattr(chosen, key) for key in ("seconds", "rounds", "clients", "loads")
        }
        about["coterie"] = {**rates, "start_seconds": took}
        peers = []
        for name in chosen.peers:
            found = with_peer(bench, PEERS[name], ours, known.get(PEERS[name].title), chosen)
            peers.append(found)
            CONSOLE.print(f"{found['title']}: {found.get('ways') or found['skipped']}")
            yield {"tasks": tasks, "width": width, **about, "peers": peers}


def written() -> list[dict[str, Any]]:
    """Return the results of earlier runs, by number of tasks."""
    path = result_folder() / f"{RESULT}.json"
    if not path.is_file():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["results"]
    return found


def together(earlier: list[dict[str, Any]], later: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all results by number of tasks; a peer that was measured again has its later figures."""
    found = {result["tasks"]: result for result in earlier}
    before = found.get(later["tasks"], later)["peers"]
    peers = {peer["title"]: peer for peer in [*before, *later["peers"]]}
    ordered = [peers[peer.title] for peer in PEERS.values() if peer.title in peers]
    found[later["tasks"]] = {**later, "peers": ordered}
    return [found[tasks] for tasks in sorted(found)]


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
    parser.add_argument("--known", action="store_true", help="only the best way with the fewest tasks so far")
    chosen = parser.parse_args()
    uvloop.install()
    earlier = written() if chosen.known else []
    known = {peer["title"]: peer["way"] for peer in (earlier or [{"peers": []}])[0]["peers"] if "way" in peer}
    for tasks in chosen.tasks:
        result: dict[str, Any] = {}
        for result in measure(tasks, known, chosen):
            earlier = together(earlier, result)
            path = write_result(RESULT, {"experts": EXPERTS, "used": USED, "results": earlier})
        show(CONSOLE, result)
        print(path)


if __name__ == "__main__":
    main()
