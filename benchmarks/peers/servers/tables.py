"""Shows what was found, in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show(console: Console, result: Mapping[str, Any]) -> None:
    """Print what each can do, and how long answers take at the same load; ratios above 1 are coterie's gain."""
    shared = [("peer", "traffic"), ("coterie/s", "peer/s", "ratio")]
    closed = Table(
        *sum(shared, ()), "p99 ms", "peer's", "core ms", "peer's", "MiB", "peer's", title="closed loop"
    )
    open_ = Table(
        "peer",
        "traffic",
        "offered/s",
        "p50 ms",
        "peer's",
        "p99 ms",
        "peer's",
        "ratio",
        "answers",
        title="open loop",
    )
    for peer in result["peers"]:
        if "skipped" in peer:
            console.print(f"{peer['title']} is left out: {peer['skipped']}")
            continue
        name = f"{peer['title']}, {peer['way']}"
        for row in peer["closed"]:
            ours, theirs = row["coterie"], row["peer"]
            closed.add_row(
                name,
                row["traffic"],
                *(f"{ours['rate']:.0f}", f"{theirs['rate']:.0f}", f"{row['throughput']:.2f}"),
                *(f"{each['p99_ms']:.1f}" for each in (ours, theirs)),
                *(f"{each['server_ms_a_request']:.2f}" for each in (ours, theirs)),
                *(str(peer["mib"][side]) for side in ("coterie", "peer")),
            )
        for row in peer["open"]:
            ours, theirs = row["coterie"], row["peer"]
            open_.add_row(
                name,
                row["traffic"],
                f"{row['offered']:.0f} ({100 * row['load']:.0f} %)",
                *(f"{each['p50_ms']:.1f}" for each in (ours, theirs)),
                *(f"{each['p99_ms']:.1f}" for each in (ours, theirs)),
                f"{row['p99']:.2f}",
                f"{row['throughput']:.2f}",
            )
    console.print(f"{result['tasks']} tasks, blocks {result['width']} wide")
    console.print(closed)
    console.print(open_)
