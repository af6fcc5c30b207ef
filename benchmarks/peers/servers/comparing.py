"""Two servers in turn: what each can do, and how long answers take at the same offered load."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.peers.servers.asking import Asker, Side
from benchmarks.serving.cores import halted
from benchmarks.serving.questions import Traffic
from coterie.cli._bench._loops import Measured

TRAFFICS: tuple[Traffic, ...] = ("uniform", "zipf")


def compared(
    asker: Asker, coterie: Side, peer: Side, *, loads: Sequence[float], rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Ask both in a closed loop, then in an open one at parts of the rate that the peer has shown."""
    found: dict[str, list[dict[str, Any]]] = {"closed": [], "open": []}
    for traffic in TRAFFICS:
        row = _in_turn(coterie, peer, rounds, partial(asker.closed, traffic=traffic))
        found["closed"].append({"traffic": traffic, **row})
        for load in loads:
            rate = load * row["peer"]["rate"]
            row_at = _in_turn(coterie, peer, rounds, partial(asker.open, traffic=traffic, rate=rate))
            found["open"].append({"traffic": traffic, "load": load, "offered": round(rate, 1), **row_at})
    return found


def _in_turn(coterie: Side, peer: Side, rounds: int, ask: Callable[..., Measured]) -> dict[str, Any]:
    """Return each side's figures over all rounds; ratios above 1 say that coterie is better."""
    sides: dict[str, list[Measured]] = {"coterie": [], "peer": []}
    for number in range(rounds):
        with halted(peer.at.pid):
            sides["coterie"].append(ask(coterie, seed=number))
        with halted(coterie.at.pid):
            sides["peer"].append(ask(peer, seed=number))
    row: dict[str, Any] = {name: _pooled(each) for name, each in sides.items()}
    row["throughput"] = _ratio(row["coterie"]["rate"], row["peer"]["rate"])
    row["p99"] = _ratio(row["peer"]["p99_ms"], row["coterie"]["p99_ms"])
    return row


def _pooled(rounds: Sequence[Measured]) -> dict[str, Any]:
    whole = Measured(sum(each.seconds for each in rounds))
    for each in rounds:
        whole.latencies += each.latencies
        whole.failures += each.failures
        whole.server_cpu += each.server_cpu
    whole.client_cpu = statistics.fmean(each.client_cpu for each in rounds)
    return whole.summary() | {"late_ms": round(1000 * max(each.late for each in rounds), 3)}


def _ratio(above: float, below: float) -> float:
    return round(above / below, 2)
