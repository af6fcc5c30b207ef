"""Shows what was found, in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Print what each can do, and how long answers take at the same load; above 1 coterie is better."""
    running = Table("peer", "its best way", "encoding", "started in s", "coterie's", "MiB", "coterie's")
    closed = Table(
        *("peer", "traffic", "a second", "coterie's", "ratio", "p99 ms", "coterie's"),
        title="closed loop",
    )
    open_ = Table(
        *("peer", "traffic", "offered", "p50 ms", "coterie's", "p99 ms", "coterie's", "ratio"),
        title="open loop",
    )
    for peer in result["peers"]:
        if "skipped" in peer:
            console.print(f"{peer['title']} is left out: {peer['skipped']}")
            continue
        title = peer["title"]
        starts = (f"{each['start_seconds']:.1f}" for each in (peer, result["coterie"]))
        sizes = (str(peer["mib"][side]) for side in ("peer", "coterie"))
        running.add_row(title, peer["way"], peer["encoding"], *starts, *sizes)
        for row in peer["closed"]:
            rates, tails = _both(row, "rate", digits=0), _both(row, "p99_ms")
            closed.add_row(title, row["traffic"], *rates, f"{row['throughput']:.2f}", *tails)
        for row in peer["open"]:
            middles, tails = _both(row, "p50_ms"), _both(row, "p99_ms")
            offered = f"{row['offered']:.0f}"
            open_.add_row(title, row["traffic"], offered, *middles, *tails, f"{row['p99']:.2f}")
    console.print(f"{result['tasks']} tasks, blocks {result['width']} wide")
    for table in (running, closed, open_):
        console.print(table)


def _both(row: Mapping[str, Any], key: str, digits: int = 1) -> tuple[str, str]:
    theirs, ours = (f"{row[side][key]:.{digits}f}" for side in ("peer", "coterie"))
    return theirs, ours
