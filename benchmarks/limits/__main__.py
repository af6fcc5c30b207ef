"""The machine's ceilings, the router's share of them, and what its time grows with; one thread.

python -m benchmarks.limits        # about two minutes, on an idle machine
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from benchmarks.common import write_result
from benchmarks.limits.ceilings import memory
from benchmarks.limits.growth import measure
from benchmarks.limits.router import share_by_batch
from benchmarks.serving.engine import TASKS, WIDTH, make_bundle
from coterie.runtime import load_bundle


def main() -> None:
    """Measure, print, and write JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40, help="of each size of k, M and N")
    chosen = parser.parse_args()
    console = Console()
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bandwidth = memory()
        bundle = load_bundle(make_bundle(folder / "bundle"))
        shares = share_by_batch(bundle, WIDTH, bandwidth, folder)
        growth = measure(folder, rounds=chosen.rounds)
    table = Table(
        "rows", "ms", "GFLOP/s", "of one large product", "reading weights, ms", "where the time goes"
    )
    for row in shares:
        kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in list(row["operators"].items())[:4])
        table.add_row(
            str(row["rows"]),
            f"{row['ms']:.2f}",
            f"{row['gflop_per_second']:.0f}",
            f"{row['share_of_gemm']:.0%}",
            f"{row['reading_ms']:.2f}",
            kinds,
        )
    console.print(f"one thread reads {bandwidth / 1e9:.1f} GB/s")
    console.print(table)
    for name, rows in growth.items():
        first = rows[0]["ms"]
        told = ", ".join(f"{row[name]}: {row['ms']:.2f} ms ({row['ms'] / first:.2f} x)" for row in rows)
        console.print(f"64 questions by {name}: {told}")
    write_result(
        "limits",
        {
            "what": f"router of {TASKS} tasks, blocks of two layers {WIDTH} wide, one thread",
            "memory_gigabytes_per_second": round(bandwidth / 1e9, 2),
            "batches": shares,
            "growth": growth,
        },
    )


if __name__ == "__main__":
    main()
