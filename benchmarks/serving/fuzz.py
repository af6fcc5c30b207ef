"""Requests of every kind, right and wrong, to real servers: what they answer, and whether anything breaks.

    python -m benchmarks.serving.fuzz --cases 100000          # a few minutes
    python -m benchmarks.serving.fuzz --cases 5000 --seed 7

Half of the cases go to a bundle over numbers, half to one over texts; of each, some are made by schemathesis
from the server's OpenAPI page, and of the others half go over HTTP and half over gRPC, all through sockets.
``tests/fuzz/server_trials.py`` says what a server must not do; if one does, the command fails. A seed repeats
all cases.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from tests.fuzz.openapi import over_openapi
from tests.fuzz.requests import Target
from tests.fuzz.server_trials import Judge, Outcome, over_grpc, over_http
from tests.runtime.handmade import FEATURES, write_bundle

from benchmarks.common import write_result
from coterie.runtime.serving import running_server

SHOWN = 20
OPENAPI = 0.03
"""Of the cases, by schemathesis: each of its takes as long as some twenty of ours."""


def main() -> None:
    """Send, judge, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first case")
    chosen = parser.parse_args()
    began = time.perf_counter()
    outcomes: list[Outcome] = []
    restarted = 0
    with tempfile.TemporaryDirectory() as folder:
        for text in (False, True):
            found, again = _asked(Path(folder), chosen.cases // 2, chosen.seed, text=text)
            outcomes += found
            restarted += again
    result = _summary(outcomes) | {
        "seed": chosen.seed,
        "processes_that_ended": restarted,
        "seconds": round(time.perf_counter() - began, 1),
    }
    for name, counts in result["kinds"].items():
        print(f"{name:18s}", "  ".join(f"{status} {count}" for status, count in counts.items()))
    for wrong in result["not_allowed"]:
        print(wrong)
    print(f"{len(outcomes)} cases, {result['by']}; not allowed: {result['wrong']}; ended: {restarted}")
    print(write_result("serving_fuzz", result))
    sys.exit(bool(result["wrong"] or restarted))


def _asked(folder: Path, cases: int, seed: int, *, text: bool) -> tuple[list[Outcome], int]:
    """Return what came of so many cases, and how many of the server's processes are no longer the same."""
    made = write_bundle(folder / ("texts" if text else "features"), text=text)
    target = Target(made.names, "text" if text else "features", 0 if text else FEATURES)
    judge = Judge([str(folder), str(Path.home())])
    with running_server(made.path, threads=1, max_body=1 << 20, max_rows=64) as addresses:
        before = _processes(addresses.pid)
        outcomes = over_openapi(addresses.http, max(1, int(OPENAPI * cases / 16)), judge, seed)
        rest = range(seed, seed + max(0, cases - len(outcomes)) // 2)
        outcomes += asyncio.run(over_http(addresses.http, target, rest, judge))
        outcomes += asyncio.run(over_grpc(str(addresses.grpc), target, rest, judge))
        return outcomes, len(before - _processes(addresses.pid))


def _processes(pid: int) -> set[tuple[int, float]]:
    server = psutil.Process(pid)
    return {(each.pid, each.create_time()) for each in (server, *server.children(recursive=True))}


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    kinds: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        kinds.setdefault(f"{outcome.transport} {outcome.kind}", Counter())[outcome.status] += 1
    wrong = [outcome for outcome in outcomes if outcome.wrong]
    return {
        "cases": len(outcomes),
        "by": dict(Counter(outcome.transport for outcome in outcomes)),
        "kinds": {name: dict(sorted(counts.items())) for name, counts in sorted(kinds.items())},
        "wrong": len(wrong),
        "not_allowed": [
            {"transport": each.transport, "seed": each.seed, "kind": each.kind, "what": each.wrong}
            for each in wrong[:SHOWN]
        ],
    }


if __name__ == "__main__":
    main()
